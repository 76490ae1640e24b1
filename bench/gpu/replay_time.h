// How long launches take as the engine makes them: recorded once, replayed. Shared by the GPU's timing programs.
#pragma once

#include <algorithm>
#include <functional>
#include <vector>

#include "octet/device/graph.h"
#include "octet/device/stream.h"

namespace octet {

// Microseconds of one of the `count` launches that `work` queues: the median of some replays, after one that is not
// counted.
inline double replay_time(Stream stream, int count, const std::function<void()>& work) {
  constexpr int kReplays = 7;
  const Graph graph = Graph::capture(stream, work);
  graph.replay(stream);
  std::vector<double> times;
  times.reserve(kReplays);
  for (int i = 0; i < kReplays; ++i) {
    Event start(stream.device), stop(stream.device);
    start.record(stream);
    graph.replay(stream);
    stop.record(stream);
    stop.wait();
    times.push_back(stop.milliseconds_since(start) * 1e3 / count);
  }
  std::nth_element(times.begin(), times.begin() + kReplays / 2, times.end());
  return times[kReplays / 2];
}

}  // namespace octet
