#include "octet/engine/decode_graphs.h"

#include <algorithm>

#include "octet/device/stream.h"

namespace octet {

std::vector<int64_t> DecodeGraphs::batch_sizes(int64_t most) {
  constexpr int64_t kFine = 8, kUntil = 128, kCoarse = 64;
  std::vector<int64_t> sizes;
  for (int64_t size = 1; size < most;) {
    sizes.push_back(size);
    size += size < kFine ? size : size < kUntil ? kFine : kCoarse;
  }
  if (most > 0) sizes.push_back(most);
  return sizes;
}

void DecodeGraphs::record(Stream stream, int64_t most, const std::function<QueueStep(int64_t batch_size)>& prepare,
                          const std::function<void()>& meet) {
  meet();
  for (const int64_t size : batch_sizes(most)) {
    const QueueStep queue = prepare(size);
    queue();
    synchronize(stream);  // what a kernel does wrong shows here
    meet();
    Recorded recorded{.batch_size = size, .graph = {}, .outputs = {}};
    recorded.graph = Graph::capture(stream, [&] { recorded.outputs = queue(); });
    synchronize(stream);  // the graph is on the device
    meet();
    recorded_.push_back(std::move(recorded));
  }
}

const DecodeGraphs::Recorded* DecodeGraphs::find(int64_t num_sequences) const {
  const auto found = std::find_if(recorded_.begin(), recorded_.end(),
                                  [&](const Recorded& r) { return r.batch_size >= num_sequences; });
  return found == recorded_.end() ? nullptr : &*found;
}

}  // namespace octet
