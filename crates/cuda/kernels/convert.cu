// Converts floating-point elements of one format to another, bit by bit as the host does.
//
// It takes the steps of `crates/driver/src/float/coding.rs`, which says why they are integer arithmetic: the bits of an element
// become those of the same value as a double, and these, rounded once, those of the new format. Whoever changes one changes the
// other; the conformance suite compares them.
//
// - Both formats are arguments. All threads go the same way where they are looked at, and what that takes is little beside
//   the link that the elements came over.
// - There may be any number of elements: each thread takes one, and then the one as many further on as there are threads.
// - An element is read and written as a whole, so both ends are aligned to their elements, and need no more.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// The numbers that `crates/cuda/src/convert.rs` gives the formats.
enum Format : u32 { F64, F32, F16, BF16, F8E4M3, F8E5M2, F8E8M0, F8E4M3FNUZ, F8E5M2FNUZ };

// What the codes of the largest exponent mean, and a negative zero: infinities and NaNs; values, but for one NaN; values, and
// what would be the negative zero is NaN.
enum Specials { IEEE, ONE_NAN, UNSIGNED };

enum : int { MANTISSA = 52, BIAS = 1023 };
#define SIGN (1ull << 63)
#define INFINITE (0x7ffull << MANTISSA)
#define QUIET (1ull << (MANTISSA - 1))
#define FRACTION ((1ull << MANTISSA) - 1)

template <int E, int M, int B, Specials S>
__device__ __forceinline__ u64 widen(u64 code) {
    const u64 magnitude = code & ((1ull << (E + M)) - 1);
    const u64 sign = (code >> (E + M) & 1) << 63;
    const int exponent = static_cast<int>(magnitude >> M);
    const u64 mantissa = magnitude & ((1ull << M) - 1);
    if (S == IEEE && exponent == (1 << E) - 1) return sign | INFINITE | mantissa << (MANTISSA - M);
    if (S == ONE_NAN && magnitude + 1 == 1ull << (E + M)) return sign | INFINITE | QUIET;
    if (S == UNSIGNED && sign != 0 && magnitude == 0) return INFINITE | QUIET;
    if (magnitude == 0) return sign;
    if (exponent == 0) {
        const int top = 63 - __clzll(static_cast<long long>(mantissa));
        return sign | static_cast<u64>(top + 1 - B - M + BIAS) << MANTISSA | (mantissa << (MANTISSA - top) & FRACTION);
    }
    return sign | static_cast<u64>(exponent - B + BIAS) << MANTISSA | mantissa << (MANTISSA - M);
}

template <int E, int M, int B, Specials S>
__device__ __forceinline__ u64 narrow(u64 bits) {
    const u64 sign = (bits >> 63) << (E + M);
    const u64 magnitude = bits & ~SIGN;
    const u64 largest = ((1ull << E) - 1) << M;
    if (magnitude > INFINITE) {
        if (S == IEEE) return sign | largest | 1ull << (M - 1) | (magnitude & FRACTION) >> (MANTISSA - M);
        if (S == ONE_NAN) return sign | ((1ull << (E + M)) - 1);
        return 1ull << (E + M);
    }
    const int biased = static_cast<int>(magnitude >> MANTISSA);
    const u64 fraction = magnitude & FRACTION;
    const u64 significand = biased == 0 ? fraction : fraction | 1ull << MANTISSA;
    const int exponent = (biased > 1 ? biased : 1) - BIAS + B;
    const int wanted = MANTISSA - M + (exponent < 1 ? 1 - exponent : 0);
    const int shift = wanted < MANTISSA + 2 ? wanted : MANTISSA + 2;
    const u64 half = 1ull << (shift - 1);
    const u64 odd = significand >> shift & 1;
    const u64 rounded = (significand + (half - 1) + odd) >> shift;
    const u64 code = (static_cast<u64>((exponent > 1 ? exponent : 1) - 1) << M) + rounded;
    if (S == IEEE) return sign | (code < largest ? code : largest);
    if (S == ONE_NAN) return sign | (code < (1ull << (E + M)) - 1 ? code : (1ull << (E + M)) - 1);
    if (code >> (E + M)) return 1ull << (E + M);
    return code == 0 ? 0 : sign | code;
}

__device__ __forceinline__ u64 read(Format format, const u8* src, u64 element) {
    switch (format) {
        case F64: return reinterpret_cast<const u64*>(src)[element];
        case F32: return widen<8, 23, 127, IEEE>(reinterpret_cast<const u32*>(src)[element]);
        case F16: return widen<5, 10, 15, IEEE>(reinterpret_cast<const u16*>(src)[element]);
        case BF16: return widen<8, 7, 127, IEEE>(reinterpret_cast<const u16*>(src)[element]);
        case F8E4M3: return widen<4, 3, 7, ONE_NAN>(src[element]);
        case F8E5M2: return widen<5, 2, 15, IEEE>(src[element]);
        case F8E4M3FNUZ: return widen<4, 3, 8, UNSIGNED>(src[element]);
        case F8E5M2FNUZ: return widen<5, 2, 16, UNSIGNED>(src[element]);
        case F8E8M0: break;
    }
    const u64 code = src[element];
    return code == 0xff ? INFINITE | QUIET : (code + BIAS - 127) << MANTISSA;
}

__device__ __forceinline__ void write(Format format, u8* dst, u64 element, u64 bits) {
    switch (format) {
        case F64:
            reinterpret_cast<u64*>(dst)[element] = (bits & ~SIGN) > INFINITE ? bits | QUIET : bits;
            break;
        case F32:
            reinterpret_cast<u32*>(dst)[element] = static_cast<u32>(narrow<8, 23, 127, IEEE>(bits));
            break;
        case F16:
            reinterpret_cast<u16*>(dst)[element] = static_cast<u16>(narrow<5, 10, 15, IEEE>(bits));
            break;
        case BF16:
            reinterpret_cast<u16*>(dst)[element] = static_cast<u16>(narrow<8, 7, 127, IEEE>(bits));
            break;
        case F8E4M3:
            dst[element] = static_cast<u8>(narrow<4, 3, 7, ONE_NAN>(bits));
            break;
        case F8E5M2:
            dst[element] = static_cast<u8>(narrow<5, 2, 15, IEEE>(bits));
            break;
        case F8E4M3FNUZ:
            dst[element] = static_cast<u8>(narrow<4, 3, 8, UNSIGNED>(bits));
            break;
        case F8E5M2FNUZ:
            dst[element] = static_cast<u8>(narrow<5, 2, 16, UNSIGNED>(bits));
            break;
        case F8E8M0:
            break;  // It has no sign and no zero, and nobody asks for it.
    }
}

extern "C" __global__ void pinlane_convert(u8* dst, const u8* src, u64 elements, u64 from, u64 to) {
    const u64 threads = static_cast<u64>(gridDim.x) * blockDim.x;
    u64 element = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x;
    for (; element < elements; element += threads) {
        write(static_cast<Format>(to), dst, element, read(static_cast<Format>(from), src, element));
    }
}
