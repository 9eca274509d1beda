// The largest shares of channels: numerators, division and maximum in one pass. pfp._largest_share does it in steps.
//
//   largest[j] = max over outputs o, patches p of   max(sum_r w+ a * positive, sum_r w- a * negative)
//
// x         [channels, kernel, patches], patches a multiple of BLOCK, padded with zeros
// weight    [outputs, channels, kernel]
// positive  [outputs, patches], 1 over the sums of the positive terms, 0 where a share counts as 0; negative likewise
// largest   [channels], updated for the channels from first up to, not including, last
//
// A tile of outputs stays in the L1 cache during the loop over all channels. Both signs are always multiplied: a branch
// on the sign of each weight costs more than the multiplications it saves.

typedef float lanes __attribute__((vector_size(64), aligned(4)));
enum { LANES = 16, WIDTH = 4, BLOCK = LANES * WIDTH, TILE = 16 };

static inline lanes larger(lanes a, lanes b) { return a > b ? a : b; }

template <int KERNEL>
static void rows(const float* x, const float* weight, const float* positive, const float* negative, float* largest,
                 long channels, long outputs, long kernel, long patches, long first, long last) {
    const long size = KERNEL ? KERNEL : kernel;
    for (long at = 0; at < patches; at += BLOCK)
        for (long tile = 0; tile < outputs; tile += TILE) {
            const long end = tile + TILE < outputs ? tile + TILE : outputs;
            for (long j = first; j < last; j++) {
                lanes best[WIDTH] = {};
                const float* seen = x + j * size * patches + at;
                for (long o = tile; o < end; o++) {
                    const float* w = weight + (o * channels + j) * size;
                    lanes up[WIDTH] = {}, down[WIDTH] = {};
                    for (long r = 0; r < size; r++) {
                        const lanes* a = (const lanes*)(seen + r * patches);
                        const float above = w[r] > 0 ? w[r] : 0, below = w[r] < 0 ? -w[r] : 0;
                        for (int v = 0; v < WIDTH; v++) up[v] += above * a[v];
                        for (int v = 0; v < WIDTH; v++) down[v] += below * a[v];
                    }
                    const lanes* p = (const lanes*)(positive + o * patches + at);
                    const lanes* n = (const lanes*)(negative + o * patches + at);
                    for (int v = 0; v < WIDTH; v++) best[v] = larger(best[v], larger(up[v] * p[v], down[v] * n[v]));
                }
                for (int v = 0; v < WIDTH; v++)
                    for (int i = 0; i < LANES; i++)
                        if (best[v][i] > largest[j]) largest[j] = best[v][i];
            }
        }
}

template <>
void rows<1>(const float* x, const float* weight, const float* positive, const float* negative, float* largest,
             long channels, long outputs, long, long patches, long first, long last) {
    for (long at = 0; at < patches; at += BLOCK)
        for (long tile = 0; tile < outputs; tile += TILE) {
            const long end = tile + TILE < outputs ? tile + TILE : outputs;
            for (long j = first; j < last; j++) {
                lanes best[WIDTH] = {}, a[WIDTH];
                for (int v = 0; v < WIDTH; v++) a[v] = ((const lanes*)(x + j * patches + at))[v];
                for (long o = tile; o < end; o++) {
                    const float w = weight[o * channels + j];
                    const lanes* inverse = (const lanes*)((w > 0 ? positive : negative) + o * patches + at);
                    const float size = w > 0 ? w : -w;
                    for (int v = 0; v < WIDTH; v++) best[v] = larger(best[v], a[v] * inverse[v] * size);
                }
                for (int v = 0; v < WIDTH; v++)
                    for (int i = 0; i < LANES; i++)
                        if (best[v][i] > largest[j]) largest[j] = best[v][i];
            }
        }
}

extern "C" void largest_shares(const float* x, const float* weight, const float* positive, const float* negative,
                               float* largest, long channels, long outputs, long kernel, long patches, long first,
                               long last) {
    if (kernel == 1) rows<1>(x, weight, positive, negative, largest, channels, outputs, kernel, patches, first, last);
    else if (kernel == 9) rows<9>(x, weight, positive, negative, largest, channels, outputs, kernel, patches, first, last);
    else rows<0>(x, weight, positive, negative, largest, channels, outputs, kernel, patches, first, last);
}
