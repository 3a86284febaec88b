/* clones.h: loops that the compiler makes for three instruction sets, of which one is chosen when the library is loaded. */
#ifndef LBR_CLONES_H
#define LBR_CLONES_H

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define LBR_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define LBR_CLONES
#endif

#endif
