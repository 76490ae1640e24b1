// Graph: a recorded sequence of kernel launches that is replayed as one. GPUs only: on the CPU supports_graphs() is
// false and callers run their function directly.
#pragma once

#include <functional>

#include "octet/device/device.h"

namespace octet {

bool supports_graphs(Device device);

// Move-only; empty until assigned from capture.
class Graph {
 public:
  Graph() = default;
  // What `work` queues on `stream`, recorded and not run. Addresses and launch shapes are frozen. `work` may neither
  // allocate nor wait. When it throws, nothing is recorded and the exception goes on.
  static Graph capture(Stream stream, const std::function<void()>& work);
  ~Graph();
  Graph(Graph&& other) noexcept;
  Graph& operator=(Graph&& other) noexcept;

  bool empty() const { return handle_ == nullptr; }
  void replay(Stream stream) const;

 private:
  void* handle_ = nullptr;  // cudaGraphExec_t
};

}  // namespace octet
