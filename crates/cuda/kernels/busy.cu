// Keeps one thread of the device's compute busy for a span of time: something for copies to overlap with.

extern "C" __global__ void pinlane_busy(unsigned long long nanoseconds) {
    unsigned long long start, now;
    // Volatile: each read is a new one. The timer counts nanoseconds at whatever clock the device runs.
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
    do {
        asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    } while (now - start < nanoseconds);
}
