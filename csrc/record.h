/* record.h: what a plan is made of; shared by record.c, which makes and runs plans, and plan_file.c and plan_write.c, which keep them in files. Not part of the ABI. */
#ifndef LBR_RECORD_H
#define LBR_RECORD_H

#include "device.h"

typedef struct lbr_step {
    lbr_call call;
    void *attr;
    double seconds;
} lbr_step;

/* A named input or output of a plan that came from a file. */
typedef struct lbr_port {
    char *name;
    lbr_tensor tensor;
} lbr_port;

struct lbr_plan {
    lbr_step *steps;
    int size, room;
    char *arena;
    int64_t arena_bytes;
    void *spare;              /* memory for the next call's attributes */
    int device;               /* of all calls; -1: of several */
    bool alone;               /* runs beside others: its kernels on the CPU use nothing that is one for all, as far as they have run */
    void *graph;              /* the calls as the device's own graph, captured at the first replay */
    /* of a plan from a file: */
    lbr_reader *file;         /* holds the constants; NULL: recorded */
    lbr_port *ports;          /* inputs, then outputs */
    int inputs, outputs;
};

/* Room for one step more. LBR_ENOMEM. */
int lbr_plan_grow(lbr_plan *plan);
/* May a plan run now? LBR_EINVAL while another is recorded, LBR_EINTR. */
int lbr_plan_ready(void);

#endif
