/* plan_file.h: what writing and reading of plan files share; docs/FORMATS.md has the layout. Not part of the ABI. */
#ifndef LBR_PLAN_FILE_H
#define LBR_PLAN_FILE_H

#include "record.h"

#define LBR_PLAN_MAGIC "LBRPLAN" /* and its zero: 8 bytes */
enum { VERSION = 1, ALIGNMENT = 64, ARENA_ALIGNMENT = 256, LONGEST_NAME = 65535 };
/* What a storage is: memory that a call or the caller fills before it is read; numbers that stay; numbers that calls change. */
enum { SCRATCH, CONSTANT, VARIABLE, STORAGES };

static inline int64_t aligned(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* Has t more elements than there is memory? Such a view would be a small file's huge answer. */
static inline bool stretched(const lbr_tensor *t) { return lbr_tensor_numel(t) * lbr_dtype_size(t->dtype) > t->storage->bytes; }

#endif
