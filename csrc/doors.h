/* doors.h: ops.def as lines for tools/doors.awk; only preprocessed, never compiled. */
#define IN(name) I name
#define OPT(name) I name
#define OUT(name) O name
#define LBR_OP(name, ins, outs, attrs, flags) DOOR name ins outs
#include "ops.def"
