// Keeps one thread of the device's compute busy for a span of time: something for copies to overlap with.
//
// `busy.ptx` beside this file says the same in PTX, for the oldest target that the driver still compiles. Where nvcc
// exists, `nvcc --ptx -arch=compute_75 busy.cu` shows what the compiler makes of it.

extern "C" __global__ void pinlane_busy(unsigned long long nanoseconds) {
    unsigned long long start, now;
    // Volatile: each read is a new one. The timer counts nanoseconds at whatever clock the device runs.
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
    do {
        asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    } while (now - start < nanoseconds);
}
