// Moves many pieces between addresses that lie anywhere: device memory, and host memory that is pinned and mapped.
//
// The table says which: one entry for each piece, written by the host into memory of that kind, no piece so long that
// its warp would finish long after the others. A warp moves a piece; there are fewer warps than pieces where there are
// many, and then each takes several.
//
// - Reads over the link take microseconds, so each thread has ROUND of them on their way before it writes the first.
// - A warp's words follow each other: 512 bytes at once, four whole lines of 128 bytes where the destination is aligned.
// - Words of 16 bytes where both ends have the same place within 16, else of 4, else of 1. What stands before the first
//   and behind the last whole word of the destination goes byte by byte.

struct Piece {
    unsigned long long dst, src, bytes;
};

enum : unsigned { LANES = 32, ROUND = 8 };

template <typename Word>
__device__ void move(unsigned char* dst, const unsigned char* src, unsigned long long bytes, unsigned lane) {
    const unsigned long long to_aligned = (0 - reinterpret_cast<unsigned long long>(dst)) % sizeof(Word);
    const unsigned long long head = to_aligned < bytes ? to_aligned : bytes;
    const unsigned long long words = (bytes - head) / sizeof(Word);
    const unsigned long long tail = head + words * sizeof(Word) + lane;
    // Less than one word of each, and no word has more bytes than a warp has lanes.
    if (lane < head) dst[lane] = src[lane];
    if (tail < bytes) dst[tail] = src[tail];

    Word* const to = reinterpret_cast<Word*>(dst + head);
    const Word* const from = reinterpret_cast<const Word*>(src + head);
    for (unsigned long long first = lane; first < words; first += ROUND * LANES) {
        Word round[ROUND];
#pragma unroll
        for (unsigned i = 0; i < ROUND; i++) {
            if (first + i * LANES < words) round[i] = from[first + i * LANES];
        }
#pragma unroll
        for (unsigned i = 0; i < ROUND; i++) {
            if (first + i * LANES < words) to[first + i * LANES] = round[i];
        }
    }
}

extern "C" __global__ void pinlane_scatter(const Piece* table, unsigned long long pieces) {
    const unsigned lane = threadIdx.x % LANES;
    const unsigned long long warps = static_cast<unsigned long long>(gridDim.x) * blockDim.x / LANES;
    unsigned long long piece = (static_cast<unsigned long long>(blockIdx.x) * blockDim.x + threadIdx.x) / LANES;
    for (; piece < pieces; piece += warps) {
        const Piece next = table[piece];
        unsigned char* const dst = reinterpret_cast<unsigned char*>(next.dst);
        const unsigned char* const src = reinterpret_cast<const unsigned char*>(next.src);
        const unsigned long long apart = next.dst ^ next.src;
        if (apart % 16 == 0) {
            move<uint4>(dst, src, next.bytes, lane);
        } else if (apart % 4 == 0) {
            move<unsigned>(dst, src, next.bytes, lane);
        } else {
            move<unsigned char>(dst, src, next.bytes, lane);
        }
    }
}
