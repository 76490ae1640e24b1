#include "python/output_mailbox.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "octet/base/error.h"

namespace octet {
namespace {

// The entry of sequence `index` among what is new.
CompletionOutput& entry_of(RequestOutput& news, int32_t index) {
  for (CompletionOutput& completion : news.outputs) {
    if (completion.index == index) return completion;
  }
  return news.outputs.emplace_back(CompletionOutput{.index = index});
}

void add_delta(const OutputDelta& delta, const CompletionOutput& whole, CompletionOutput& news) {
  news.text += delta.text;
  news.token_ids.insert(news.token_ids.end(), delta.token_ids.begin(), delta.token_ids.end());
  const size_t count = std::min(delta.token_ids.size(), whole.logprobs.size());
  news.logprobs.insert(news.logprobs.end(), whole.logprobs.end() - static_cast<std::ptrdiff_t>(count),
                       whole.logprobs.end());
  news.cumulative_logprob = whole.cumulative_logprob;
  news.finish_reason = whole.finish_reason;
  news.stop_reason = whole.stop_reason;
  news.error = whole.error;
}

}  // namespace

OutputMailbox::OutputMailbox() : fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (fd_ < 0) fail(ErrorCode::kIo, "no file descriptor for the engine's outputs: {}", std::strerror(errno));
}

OutputMailbox::~OutputMailbox() { ::close(fd_); }

OnOutput OutputMailbox::sink(uint64_t key) {
  return [self = shared_from_this(), key, first = true](const RequestOutput& output,
                                                        std::span<const OutputDelta> deltas) mutable {
    self->put(key, output, deltas, std::exchange(first, false));
  };
}

void OutputMailbox::put(uint64_t key, const RequestOutput& output, std::span<const OutputDelta> deltas, bool first) {
  const std::lock_guard lock(mutex_);
  const bool was_empty = news_.empty();
  RequestOutput& news = news_[key];
  if (first) {
    news.prompt = output.prompt;
    news.prompt_token_ids = output.prompt_token_ids;
    news.prompt_logprobs = output.prompt_logprobs;
  }
  for (const OutputDelta& delta : deltas) {
    add_delta(delta, output.outputs[static_cast<size_t>(delta.index)], entry_of(news, delta.index));
  }
  news.num_cached_tokens = output.num_cached_tokens;
  news.times = output.times;
  news.finished = output.finished;
  if (was_empty) ::eventfd_write(fd_, 1);
}

std::vector<std::pair<uint64_t, RequestOutput>> OutputMailbox::take() {
  std::map<uint64_t, RequestOutput> taken;
  {
    const std::lock_guard lock(mutex_);
    eventfd_t count = 0;
    ::eventfd_read(fd_, &count);
    taken = std::exchange(news_, {});
  }
  std::vector<std::pair<uint64_t, RequestOutput>> outputs;
  outputs.reserve(taken.size());
  for (auto& [key, output] : taken) outputs.emplace_back(key, std::move(output));
  return outputs;
}

}  // namespace octet
