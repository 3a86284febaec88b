/* transcode.h: what a transcode is made of, between transcode_open.c that opens it and transcode.c that runs it; not for others (media.h). */
#ifndef LIBRATION_MEDIA_TRANSCODE_H
#define LIBRATION_MEDIA_TRANSCODE_H

#include "internal.h"

enum { MOST = 256, STAGES = 4 };

struct place {
    AVFrame *frame;
    struct lbr_frame rgb;     /* of this frame where frames are converted ahead; else the first place's serves for all */
    struct lbr_frame coarse;
    int64_t index, pts, duration;
    double time;
    int damaged;              /* 1: broken, 2: lost */
    lbr_mask *masks;
    int64_t count;
};

/* Frame i lies in places[i % queue]. read >= converted >= taken >= given >= masked >= encoded >= read - queue: each stage moves its own count. */
struct lbr_transcode {
    char *name;
    struct lbr_decoder decoder;
    struct lbr_encoder encoder;
    struct lbr_planes planes;
    struct lbr_converter converter;
    struct lbr_coarse coarse;
    struct lbr_mask_room room;
    lbr_transcode_info info;
    bool writing, converting, coarsely;
    int orientation;          /* of the frames in the ring */
    AVRational base;
    int64_t origin, shift, last_pts;   /* ticks of the input: its beginning; what the output takes off its times; of the last frame */
    char *dropped, text[1040];
    AVFrame *blank;
    bool first;               /* decoder.frame holds the first frame */

    pthread_t threads[STAGES];
    int running;
    pthread_mutex_t lock;
    pthread_cond_t moved;
    struct place places[MOST];
    int queue;
    int64_t read, converted, taken, given, masked, encoded;
    bool ended, ending, finished, stop;
    bool idle;                /* the output is given up: frames go through the last stages untouched */
    int status;               /* the first that a stage met */
    char error[512];
    double began;
    lbr_transcode_busy busy;
};

/* Starts the threads that it needs. LBR_ENOMEM: there is none to be had. */
int lbr_transcode_start(lbr_transcode *t);

#endif
