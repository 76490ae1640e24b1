#include "octet/device/graph.h"

#include <utility>

#include "octet/base/error.h"
#include "octet/device/cuda_runtime.h"

namespace octet {

bool supports_graphs(Device device) { return device.kind == DeviceKind::kCuda; }

Graph Graph::capture(Stream stream, const std::function<void()>& work) {
  OCTET_CHECK(supports_graphs(stream.device));
  cuda::begin_capture(stream.handle);
  try {
    work();
  } catch (...) {
    cuda::cancel_capture(stream.handle);
    throw;
  }
  Graph graph;
  graph.handle_ = cuda::end_capture(stream.handle);
  return graph;
}

Graph::~Graph() {
  if (handle_ != nullptr) cuda::release_graph(handle_);
}

Graph::Graph(Graph&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}

Graph& Graph::operator=(Graph&& other) noexcept {
  std::swap(handle_, other.handle_);
  return *this;
}

void Graph::replay(Stream stream) const {
  OCTET_CHECK(handle_ != nullptr);
  cuda::replay(handle_, stream.handle);
}

}  // namespace octet
