// What octet uses of the CUDA runtime, without its header: cuda/runtime.cc, or in a build without CUDA
// cuda_runtime_without_cuda.cc, which has no device. Internal to octet/device.
//
// Every function but num_devices, why_none and those that are noexcept throws Error{kInternal} naming the CUDA call
// that failed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "octet/device/device.h"

namespace octet::cuda {

// Usable GPUs; 0 without CUDA in the build, a driver, or a GPU of a generation that octet has kernels for.
int num_devices();
// Why num_devices() is 0, as a half sentence: "this build of octet has no CUDA".
std::string why_none();

GpuProperties properties(int device);
int64_t available_bytes(int device);

void make_current(int device);

// Whether kernels of `device` can read and write `peer`'s memory, and that they may: also memory that is allocated
// later.
bool can_access_peer(int device, int peer);
void enable_peer_access(int device, int peer);

// nullptr when the memory is not to be had. Aligned to 256 bytes.
std::byte* allocate(int device, int64_t num_bytes);
void release(std::byte* data) noexcept;
// Page-locked memory of the host, reachable by every GPU.
std::byte* allocate_pinned(int64_t num_bytes);
void release_pinned(std::byte* data) noexcept;

void copy(void* to, const void* from, int64_t num_bytes, void* stream);
void copy_rows(void* to, int64_t to_stride, const void* from, int64_t from_stride, int64_t row_bytes, int64_t num_rows,
               void* stream);
void fill(void* to, std::byte value, int64_t num_bytes, void* stream);

void* make_stream(int device);
void release_stream(void* stream) noexcept;
void synchronize(void* stream);

void* make_event(int device);
void release_event(void* event) noexcept;
void record(void* event, void* stream);
void wait_on_host(void* event);
void wait_on_stream(void* event, void* stream);
bool is_done(void* event);
double milliseconds_between(void* start, void* stop);

void begin_capture(void* stream);
// The recorded work, ready to be replayed.
void* end_capture(void* stream);
void cancel_capture(void* stream) noexcept;
void replay(void* graph, void* stream);
void release_graph(void* graph) noexcept;

}  // namespace octet::cuda
