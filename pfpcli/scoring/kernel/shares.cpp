// The largest shares of channels: numerators, division and maximum in one pass. pfp._largest_share does it in steps.
//
//   largest[j] = max over outputs o, patches p of   max(sum_r w+ a * positive, sum_r w- a * negative)
//
// x         [channels, kernel, patches], patches a multiple of BLOCK, padded with zeros
// up, down  [channels, kernel, outputs], w+ and w-: the positive and the negative part of the weights, none below 0;
//           outputs a multiple of LANES, padded with zeros
// positive  [outputs, patches], 1 over the sums of the positive terms, 0 where a share counts as 0; negative likewise
// largest   [channels], updated for the channels from first up to, not including, last
// bounded   0 computes every share; else those that cannot be the largest are skipped
//
// A block of patches holds no share above max(sum_r w+ max a * max positive, sum_r w- max a * max negative), with each
// maximum over the block. Where that is no more than the largest share so far, the block is skipped. Rounding moves a
// sum of `kernel` terms and a product by less than the slack, so the largest share is the same to the bit. No share is
// above 1 but by rounding, and such shares count as 1: a channel that has reached 1 is done.

#include <stdlib.h>

#ifdef __AVX512F__
enum { LANES = 16 };
#else
enum { LANES = 8 };
#endif
enum { BLOCK = 16, PARTS = BLOCK / LANES, TOGETHER = 8 };

typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4)));

static inline lanes larger(lanes a, lanes b) { return a > b ? a : b; }

static inline float largest_of(const float* some, long count) {
    float found = 0;
    for (long i = 0; i < count; i++) found = some[i] > found ? some[i] : found;
    return found;
}

// The largest share of one channel in one output at the patches of a block.
template <int KERNEL>
static inline float share(const float* seen, const float* up, const float* down, const float* positive,
                          const float* negative, long kernel, long patches, long outputs) {
    lanes above[PARTS] = {}, below[PARTS] = {}, best = {};
    for (long r = 0; r < (KERNEL ? KERNEL : kernel); r++)
        for (int v = 0; v < PARTS; v++) {
            const lanes a = *(const lanes*)(seen + r * patches + v * LANES);
            above[v] += up[r * outputs] * a;
            below[v] += down[r * outputs] * a;
        }
    for (int v = 0; v < PARTS; v++) {
        best = larger(best, above[v] * *(const lanes*)(positive + v * LANES));
        best = larger(best, below[v] * *(const lanes*)(negative + v * LANES));
    }
    return largest_of((const float*)&best, LANES);
}

template <int KERNEL>
static void shares(const float* x, const float* up, const float* down, const float* positive, const float* negative,
                   float* largest, long channels, long outputs, long kernel, long patches, long first, long last,
                   long bounded) {
    const long size = KERNEL ? KERNEL : kernel;
    const float slack = 1 + (size + 8) * 2.4e-7f;
    float* const scratch = (float*)malloc(sizeof(float) * (3 * outputs + size) * TOGETHER);
    float *const tops = scratch, *const bottoms = tops + TOGETHER * outputs, *const bounds = bottoms + TOGETHER * outputs;
    float* const peaks = bounds + TOGETHER * outputs;
    for (long start = 0; start < patches; start += TOGETHER * BLOCK) {
        const long blocks = patches - start < TOGETHER * BLOCK ? (patches - start) / BLOCK : TOGETHER;
        for (long t = 0; t < blocks; t++)
            for (long o = 0; o < outputs; o++) {
                tops[t * outputs + o] = slack * largest_of(positive + o * patches + start + t * BLOCK, BLOCK);
                bottoms[t * outputs + o] = slack * largest_of(negative + o * patches + start + t * BLOCK, BLOCK);
            }
        for (long j = first; j < last; j++) {
            if (bounded && largest[j] >= 1) continue;
            const float *const seen = x + j * size * patches + start, *const w = up + j * size * outputs;
            const float* const n = down + j * size * outputs;
            for (long r = 0; r < size; r++)
                for (long t = 0; t < blocks; t++) peaks[t * size + r] = largest_of(seen + r * patches + t * BLOCK, BLOCK);
            lanes most[TOGETHER] = {};
            for (long o = 0; o < outputs; o += LANES)
                for (long t = 0; t < blocks; t++) {
                    lanes above = {}, below = {};
                    for (long r = 0; r < size; r++) {
                        above += *(const lanes*)(w + r * outputs + o) * peaks[t * size + r];
                        below += *(const lanes*)(n + r * outputs + o) * peaks[t * size + r];
                    }
                    above *= *(const lanes*)(tops + t * outputs + o);
                    below *= *(const lanes*)(bottoms + t * outputs + o);
                    const lanes bound = larger(above, below);
                    *(lanes*)(bounds + t * outputs + o) = bound;
                    most[t] = larger(most[t], bound);
                }
            float best = largest[j];
            for (long t = 0; t < blocks; t++) {
                if (bounded && largest_of((const float*)&most[t], LANES) <= best) continue;
                for (long o = 0; o < outputs; o++) {
                    if (bounded && (bounds[t * outputs + o] <= best || best >= 1)) continue;
                    const long at = o * patches + start + t * BLOCK;
                    const float found = share<KERNEL>(seen + t * BLOCK, w + o, n + o, positive + at, negative + at, size,
                                                      patches, outputs);
                    if (found > best) best = found;
                }
            }
            largest[j] = best < 1 ? best : 1;
        }
    }
    free(scratch);
}

extern "C" void largest_shares(const float* x, const float* up, const float* down, const float* positive,
                               const float* negative, float* largest, long channels, long outputs, long kernel,
                               long patches, long first, long last, long bounded) {
    auto* const of_kernel = kernel == 1 ? shares<1> : kernel == 9 ? shares<9> : kernel == 25 ? shares<25> : shares<0>;
    of_kernel(x, up, down, positive, negative, largest, channels, outputs, kernel, patches, first, last, bounded);
}
