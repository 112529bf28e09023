/* Loops written once and compiled for many constants.  Private to src/kernels.
 *
 * A function marked INLINE takes the format, the number of rows and other such things as arguments, which are
 * constants wherever it is called: its loops over them are unrolled, arrays of accumulators become registers,
 * tests of the format are gone. */
#ifndef HD_KERNELS_INLINE_H
#define HD_KERNELS_INLINE_H

#define INLINE static inline __attribute__((always_inline))
#if defined __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* Here x is in a register: where integers are added up gcc otherwise reorders the additions, and keeps more
 * terms than there are registers. */
#define HERE(x) __asm__("" : "+v"(x))

#endif
