/* device.c: opens the library of a device when it is asked for, and knows which devices there are. No kernels. */
#include "device.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

static const lbr_backend *cuda;

int lbr_device_open(const char *library)
{
    if (cuda) return cuda->devices;
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!handle) return lbr_fail(LBR_EDEVICE, "found a library that does not open: %s; run make cuda", dlerror());
    lbr_backend_door door;
    *(void **)&door = dlsym(handle, LBR_BACKEND_DOOR);
    if (!door) return lbr_fail(LBR_EDEVICE, "%s has no function %s; run make cuda", library, LBR_BACKEND_DOOR);
    const lbr_backend *b = door();
    if (!b) return LBR_EDEVICE;
    if (b->abi != LBR_ABI) return lbr_fail(LBR_EDEVICE, "%s has ABI %d, the core has %d; run make cuda", library, b->abi, LBR_ABI);
    cuda = b;
    return b->devices;
}

const lbr_backend *lbr_backend_of(int device) { return cuda && device >= LBR_CUDA && device < LBR_CUDA + cuda->devices ? cuda : NULL; }

const char *lbr_device_label(int device)
{
    static __thread char text[2][24];
    static __thread int turn;
    if (device == LBR_CPU) return "cpu";
    snprintf(text[turn ^= 1], sizeof text[0], "cuda:%d", lbr_device_number(device));
    return text[turn];
}

int lbr_device_describe(int device, char *text, int room)
{
    const lbr_backend *b = lbr_backend_of(device);
    if (!b) return lbr_fail(LBR_EDEVICE, "no device %s", lbr_device_label(device));
    return b->describe(lbr_device_number(device), text, room);
}

int lbr_device_exact(void)
{
    static int exact = -1;
    if (exact < 0) {
        const char *s = getenv("LIBRATION_SYNC");
        exact = s && *s == '1';
    }
    return exact;
}

int lbr_device_synchronize(int device)
{
    const lbr_backend *b = lbr_backend_of(device);
    return b ? b->synchronize(lbr_device_number(device)) : 0;
}

int lbr_transfer(const lbr_tensor *from, lbr_tensor *to)
{
    if (!from->storage || !to->storage) return lbr_fail(LBR_EINVAL, "transfer: a tensor was released");
    if (!lbr_same_shape(from, to) || from->dtype != to->dtype) return lbr_fail(LBR_ESHAPE, "transfer: %s to %s", lbr_describe(from), lbr_describe(to));
    if (!lbr_tensor_contiguous(from) || !lbr_tensor_contiguous(to)) return lbr_fail(LBR_ESHAPE, "transfer: %s to %s, want both contiguous", lbr_describe(from), lbr_describe(to));
    const lbr_backend *a = lbr_backend_of(from->device), *b = lbr_backend_of(to->device);
    int64_t bytes = lbr_tensor_numel(from) * lbr_dtype_size(from->dtype);
    int rc = 0;
    if (!bytes) return 0;
    if (a && b) rc = b->copy(lbr_device_number(to->device), to->data, lbr_device_number(from->device), from->data, bytes);
    else if (a) rc = a->download(lbr_device_number(from->device), to->data, from->data, bytes);
    else if (b) rc = b->upload(lbr_device_number(to->device), to->data, from->data, bytes);
    else memcpy(to->data, from->data, (size_t)bytes);
    if (!rc) to->storage->version++;
    return rc;
}

void lbr_device_fail_at(int64_t n)
{
    if (cuda) cuda->fail_at(n);
}
