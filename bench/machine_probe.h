// What the machine can do right now, to hold kernels against: bandwidths of shared machines move within minutes.
#pragma once

#include "octet/base/thread_pool.h"

namespace octet {

// Bytes per second that all threads together read from memory (plain F32 sums over 256 MiB), best of a few passes.
double read_bandwidth(ThreadPool& threads);
// F32 operations per second of all threads in independent FMAs (0 where the processor has no AVX2).
double peak_flops(ThreadPool& threads);

}  // namespace octet
