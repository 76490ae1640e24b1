// The CUDA runtime of a build without CUDA: there is no device, and nobody can call for one.
#include "octet/base/error.h"
#include "octet/device/cuda_runtime.h"

namespace octet::cuda {
namespace {

[[noreturn]] void missing() { fail(ErrorCode::kInternal, "a CUDA call in a build of octet without CUDA"); }

}  // namespace

int num_devices() { return 0; }
std::string why_none() { return "this build of octet has no CUDA"; }

GpuProperties properties(int) { missing(); }
int64_t available_bytes(int) { missing(); }
void make_current(int) { missing(); }
bool can_access_peer(int, int) { missing(); }
void enable_peer_access(int, int) { missing(); }
std::byte* allocate(int, int64_t) { missing(); }
void release(std::byte*) noexcept {}
std::byte* allocate_pinned(int64_t) { missing(); }
void release_pinned(std::byte*) noexcept {}
void copy(void*, const void*, int64_t, void*) { missing(); }
void copy_rows(void*, int64_t, const void*, int64_t, int64_t, int64_t, void*) { missing(); }
void fill(void*, std::byte, int64_t, void*) { missing(); }
void* make_stream(int) { missing(); }
void release_stream(void*) noexcept {}
void synchronize(void*) { missing(); }
void* make_event(int) { missing(); }
void release_event(void*) noexcept {}
void record(void*, void*) { missing(); }
void wait_on_host(void*) { missing(); }
void wait_on_stream(void*, void*) { missing(); }
bool is_done(void*) { missing(); }
double milliseconds_between(void*, void*) { missing(); }
void begin_capture(void*) { missing(); }
void* end_capture(void*) { missing(); }
void cancel_capture(void*) noexcept {}
void replay(void*, void*) { missing(); }
void release_graph(void*) noexcept {}

}  // namespace octet::cuda
