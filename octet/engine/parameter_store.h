// ParameterStore: owns the memory of one rank's parameters. On the CPU they are written where they stay. On a GPU they
// are written in pinned host memory and copied from there while the next ones are prepared; that memory is reused, so
// that loading needs a bounded share of the host's.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string_view>
#include <vector>

#include "octet/device/buffer.h"
#include "octet/device/stream.h"

namespace octet {

class ParameterStore {
 public:
  // Host memory for parameters under way, as long as no single one needs more.
  static constexpr int64_t kMaxStagingBytes = int64_t{1} << 30;

  ParameterStore(Device device, Stream stream) : device_(device), stream_(stream) {}

  // Host memory to write a parameter in. Throws Error{kMemory} naming the parameter.
  Tensor allocate(DType dtype, Shape shape, std::string_view name);
  // The parameter written there, on the device.
  Tensor place(Tensor written);
  // After the last parameter: waits for the copies and gives the staging memory back.
  void finish();

  int64_t num_elements() const { return num_elements_; }

 private:
  struct Stage {  // pinned host memory, for one parameter at a time
    Buffer memory;
    Event copied;
    enum class Use : uint8_t { kIdle, kWritten, kCopied } use = Use::kIdle;  // kCopied: until `copied`
    Tensor parameter;                                                        // what its contents are for
  };

  Stage& stage_for(int64_t num_bytes, std::string_view name);
  void drop_idle_stages();

  Device device_;
  Stream stream_;
  std::vector<Buffer> parameters_;
  std::deque<Stage> stages_;
  int64_t staging_bytes_ = 0;
  int64_t num_elements_ = 0;
};

}  // namespace octet
