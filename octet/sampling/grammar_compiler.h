// GrammarCompiler: grammars from specs, once each, within limits of size, time and memory: specs come from anybody.
#pragma once

#include <chrono>
#include <condition_variable>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "octet/sampling/grammar_builder.h"

namespace octet {

struct GrammarCompilerOptions {
  std::chrono::milliseconds time_limit{5000};
  int64_t max_cached_bytes = int64_t{512} << 20;
  int max_running = 2;  // builds at once, those that were given up included
};

class GrammarCompiler {
 public:
  GrammarCompiler(std::shared_ptr<const GrammarBuilder> builder, const GrammarCompilerOptions& options);
  // Waits for no build: one that was given up ends by itself.
  ~GrammarCompiler();

  // Throws Error{kInvalid}: what check_grammar() refuses, what is no grammar, what takes too long. Waits at most the
  // time limit. Thread-safe.
  std::shared_ptr<const Grammar> compile(const GrammarSpec& spec);
  int64_t cached_bytes() const;

 private:
  struct Core;
  std::shared_ptr<Core> core_;
};

}  // namespace octet
