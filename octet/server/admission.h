// Admission: how many sequences the server takes in, running and waiting together. A place is asked for before a
// request is tokenised, so that a full server says so at once.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <utility>

namespace octet {

class Admission {
 public:
  explicit Admission(int64_t limit) : limit_(limit) {}
  Admission(const Admission&) = delete;
  Admission& operator=(const Admission&) = delete;

  // Places of one request, given back when it is destroyed. Outlived by its Admission.
  class Ticket {
   public:
    Ticket() = default;
    Ticket(Admission& admission, int64_t count) : admission_(&admission), count_(count) {}
    Ticket(Ticket&& other) noexcept : admission_(std::exchange(other.admission_, nullptr)), count_(other.count_) {}
    Ticket& operator=(Ticket&& other) noexcept {
      std::swap(admission_, other.admission_);
      std::swap(count_, other.count_);
      return *this;
    }
    ~Ticket() {
      if (!admission_) return;
      admission_->num_sequences_.fetch_sub(count_);
      admission_->num_requests_.fetch_sub(1);
    }

   private:
    Admission* admission_ = nullptr;
    int64_t count_ = 0;
  };

  bool full() const { return num_sequences_.load() >= limit_; }
  // Nothing when it is full. The last request taken may bring more sequences than there were places left, so that one
  // with many is not shut out for ever.
  [[nodiscard]] std::optional<Ticket> enter(int64_t num_sequences) {
    if (num_sequences_.fetch_add(num_sequences) >= limit_) {
      num_sequences_.fetch_sub(num_sequences);
      num_rejected_.fetch_add(1);
      return std::nullopt;
    }
    num_requests_.fetch_add(1);
    return Ticket(*this, num_sequences);
  }
  void count_rejected() { num_rejected_.fetch_add(1); }

  int64_t limit() const { return limit_; }
  int64_t num_requests() const { return num_requests_.load(); }
  int64_t num_rejected() const { return num_rejected_.load(); }

 private:
  const int64_t limit_;
  std::atomic<int64_t> num_sequences_{0}, num_requests_{0}, num_rejected_{0};
};

}  // namespace octet
