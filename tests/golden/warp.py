"""Makes warp.json: OpenCV's own crops of a small made-up picture.  Usage: warp.py > warp.json  (opencv-python-headless 4.11.0.86, numpy)"""
import json
import cv2
import numpy as np

HEIGHT, WIDTH = 23, 31
REGIONS = [  # centre x, y, width, height, angle (radians), border (0 black, 1 replicated), rows and columns of the crop
    (15.5, 11.5, 31, 31, 0, 0, 14, 14), (12.25, 9.5, 11.5, 11.5, .5, 1, 13, 17), (3, 20, 25, 25, -2.2, 1, 32, 32),
    (28, 2, 40, 18, 3.1, 0, 21, 9), (15, 11, 6.5, 6.5, 1.25, 1, 17, 66), (-30, 50, 12, 12, .3, 1, 5, 7), (-30, 50, 12, 12, .3, 0, 5, 7)]

def picture():
    i = np.arange(HEIGHT * WIDTH * 3, dtype=np.int64)
    return ((i * i * 7 + i * 31 + 11) % 251).astype(np.uint8).reshape(HEIGHT, WIDTH, 3)

def crop(image, cx, cy, w, h, angle, border, rows, cols):
    f = np.float32
    degrees = f(float(f(angle)) * 180 / np.pi)
    corners = cv2.boxPoints(((float(f(cx)), float(f(cy))), (float(f(w)), float(f(h))), float(degrees)))
    target = np.array([[0, rows], [0, 0], [cols, 0], [cols, rows]], np.float32)
    matrix = cv2.getPerspectiveTransform(corners, target)
    mode = cv2.BORDER_REPLICATE if border else cv2.BORDER_CONSTANT
    return cv2.warpPerspective(image, matrix, (cols, rows), flags=cv2.INTER_LINEAR, borderMode=mode)

print(json.dumps([dict(region=r[:5], border=r[5], rows=r[6], cols=r[7], hex=crop(picture(), *r).tobytes().hex()) for r in REGIONS], indent=0))
