// What one rendering may use: the objects it made and its limits on steps and on the size of a text.
#pragma once

#include <cstdint>

#include "octet/text/jinja/value.h"

namespace octet::jinja {

class Runtime {
 public:
  Runtime(int64_t max_steps, int64_t max_text_bytes) : max_steps_(max_steps), max_text_bytes_(max_text_bytes) {}
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  // Every node evaluated, every element touched is a step, and so are each 64 bytes of text made or searched: what
  // bounds time bounds memory too.
  void spend(int64_t steps) {
    steps_ += steps;
    if (steps_ > max_steps_) raise("the template needs more than {} steps", max_steps_);
  }
  void spend_bytes(size_t bytes) { spend(static_cast<int64_t>(bytes / 64)); }
  // To be called before a text of `bytes` is made from smaller ones.
  void reserve_text(Integer bytes) {
    if (bytes > max_text_bytes_) raise("the template makes a text of more than {} bytes", max_text_bytes_);
    spend_bytes(static_cast<size_t>(bytes > 0 ? bytes : 0));
  }
  void reserve_elements(Integer count) {
    if (count > max_steps_) raise("the template needs more than {} steps", max_steps_);
    spend(static_cast<int64_t>(count > 0 ? count : 0));
  }

  template <class T, class... Args>
  T* make(Args&&... args) {
    spend(1);
    return heap_.make<T>(std::forward<Args>(args)...);
  }
  Value make_list(std::vector<Value> items) { return make_sequence(SequenceType::kList, std::move(items)); }
  Value make_tuple(std::vector<Value> items) { return make_sequence(SequenceType::kTuple, std::move(items)); }
  Value make_sequence(SequenceType type, std::vector<Value> items) {
    spend(static_cast<int64_t>(items.size()));
    return Value(make<Sequence>(type, std::move(items)));
  }
  Value make_iterator(std::function<std::optional<Value>()> next) { return Value(make<Iterator>(std::move(next))); }

  // Held while C++ recurses on the template's behalf: evaluation, nested generators.
  class Nested {
   public:
    explicit Nested(Runtime& runtime) : runtime_(runtime) {
      if (++runtime_.nesting_ > kMaxNesting) {
        --runtime_.nesting_;
        raise("the template is nested too deeply");
      }
    }
    ~Nested() { --runtime_.nesting_; }
    Nested(const Nested&) = delete;
    Nested& operator=(const Nested&) = delete;

   private:
    Runtime& runtime_;
  };

 private:
  static constexpr int kMaxNesting = 1500;  // with sanitizers a level takes up to 3 KiB of stack

  int nesting_ = 0;
  const int64_t max_steps_, max_text_bytes_;
  int64_t steps_ = 0;
  Heap heap_;
};

// Bounds recursion over nested values.
inline constexpr int kMaxValueDepth = 300;

}  // namespace octet::jinja
