// Admission: what the server takes in: sequences, running and waiting together, and tokens of prompts that wait for
// their first token. A place is asked for before a request is tokenised, so that a full server says so at once.
#pragma once

#include <fmt/format.h>

#include <atomic>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>

namespace octet {

class Admission {
 public:
  explicit Admission(int64_t max_sequences) : max_sequences_(max_sequences) {}
  Admission(const Admission&) = delete;
  Admission& operator=(const Admission&) = delete;

  // Places of one request, given back when it is destroyed. Outlived by its Admission.
  class Ticket {
   public:
    Ticket() = default;
    Ticket(Admission& admission, int64_t count) : admission_(&admission), count_(count) {}
    Ticket(Ticket&& other) noexcept { swap(other); }
    Ticket& operator=(Ticket&& other) noexcept {
      swap(other);
      return *this;
    }
    ~Ticket() {
      if (!admission_) return;
      admission_->num_waiting_tokens_.fetch_sub(num_waiting_tokens_);
      admission_->num_sequences_.fetch_sub(count_);
      admission_->num_requests_.fetch_sub(1);
    }

    // So many tokens of its prompts wait; or, when negative, no longer do.
    void add_waiting_tokens(int64_t count) {
      if (!admission_) return;
      num_waiting_tokens_ += count;
      admission_->num_waiting_tokens_.fetch_add(count);
    }

   private:
    void swap(Ticket& other) noexcept {
      std::swap(admission_, other.admission_);
      std::swap(count_, other.count_);
      std::swap(num_waiting_tokens_, other.num_waiting_tokens_);
    }

    Admission* admission_ = nullptr;
    int64_t count_ = 0, num_waiting_tokens_ = 0;
  };

  void limit_waiting_tokens(int64_t limit) { max_waiting_tokens_.store(limit); }

  // Why nobody else is taken in; nothing while there is room. The last request taken may bring more than there was room
  // for, so that a large one is not shut out for ever.
  std::optional<std::string> full() const {
    if (num_sequences_.load() >= max_sequences_) {
      return fmt::format("The server is at its limit of {} sequences.", max_sequences_);
    }
    if (num_waiting_tokens_.load() >= max_waiting_tokens_.load()) {
      return fmt::format("The server is at its limit of {} waiting prompt tokens.", max_waiting_tokens_.load());
    }
    return std::nullopt;
  }
  // Nothing when it is full.
  [[nodiscard]] std::optional<Ticket> enter(int64_t num_sequences) {
    const bool no_tokens = num_waiting_tokens_.load() >= max_waiting_tokens_.load();
    if (num_sequences_.fetch_add(num_sequences) >= max_sequences_ || no_tokens) {
      num_sequences_.fetch_sub(num_sequences);
      num_rejected_.fetch_add(1);
      return std::nullopt;
    }
    num_requests_.fetch_add(1);
    return Ticket(*this, num_sequences);
  }
  void count_rejected() { num_rejected_.fetch_add(1); }

  int64_t num_requests() const { return num_requests_.load(); }
  int64_t num_rejected() const { return num_rejected_.load(); }

 private:
  const int64_t max_sequences_;
  std::atomic<int64_t> max_waiting_tokens_{std::numeric_limits<int64_t>::max()};
  std::atomic<int64_t> num_sequences_{0}, num_waiting_tokens_{0}, num_requests_{0}, num_rejected_{0};
};

}  // namespace octet
