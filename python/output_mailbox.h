// OutputMailbox: what requests have produced since somebody last looked. The engine's output thread puts in, without
// the GIL and without waiting for anybody; an event loop is woken by a file descriptor and takes all at once. However
// slow it is, a request has one entry.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "octet/api/llm.h"

namespace octet {

class OutputMailbox : public std::enable_shared_from_this<OutputMailbox> {
 public:
  OutputMailbox();
  ~OutputMailbox();
  OutputMailbox(const OutputMailbox&) = delete;
  OutputMailbox& operator=(const OutputMailbox&) = delete;

  // For Llm::submit; keeps the mailbox alive. `key` names the request here.
  OnOutput sink(uint64_t key);

  // Becomes readable when there is something to take.
  int fd() const { return fd_; }

  // Of every request with news: texts, ids and log-probabilities that are new, the rest as it is now; the prompt and
  // its log-probabilities only in the first.
  std::vector<std::pair<uint64_t, RequestOutput>> take();

 private:
  void put(uint64_t key, const RequestOutput& output, std::span<const OutputDelta> deltas, bool first);

  const int fd_;
  std::mutex mutex_;
  std::map<uint64_t, RequestOutput> news_;
};

}  // namespace octet
