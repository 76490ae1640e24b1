#include "octet/sampling/grammar_compiler.h"

#include <optional>
#include <thread>
#include <utility>

#include "octet/base/error.h"
#include "octet/sampling/grammar_limits.h"

namespace octet {
namespace {

// What a spec came to: a grammar, or why there is none.
struct Outcome {
  std::shared_ptr<const Grammar> grammar;
  std::string error;
  ErrorCode code = ErrorCode::kInvalid;
};

}  // namespace

// Shared with the threads that build, which may outlive the compiler.
struct GrammarCompiler::Core {
  struct Entry {
    std::optional<Outcome> outcome;  // nothing while it is being built
    std::list<GrammarSpec>::iterator age;
    int64_t num_bytes = 0;
  };

  Core(std::shared_ptr<const GrammarBuilder> builder_in, const GrammarCompilerOptions& options_in)
      : builder(std::move(builder_in)), options(options_in) {}

  void build(const GrammarSpec& spec) {
    Outcome outcome;
    try {
      outcome.grammar = builder->build(spec);
    } catch (const Error& error) {
      outcome.error = error.what();
      outcome.code = error.code();
    } catch (const std::exception& error) {
      outcome.error = error.what();
    }
    const std::lock_guard lock(mutex);
    Entry& entry = entries.at(spec);
    constexpr int64_t kEntryBytes = 512;
    entry.num_bytes =
        kEntryBytes + 2 * static_cast<int64_t>(spec.text.size()) + (outcome.grammar ? outcome.grammar->num_bytes() : 0);
    entry.outcome = std::move(outcome);
    num_bytes += entry.num_bytes;
    --num_running;
    evict();
    changed.notify_all();
  }

  // With the mutex held: forgets what was not used for longest. What is being built stays.
  void evict() {
    for (auto oldest = ages.end(); num_bytes > options.max_cached_bytes && oldest != ages.begin();) {
      --oldest;
      const auto found = entries.find(*oldest);
      if (!found->second.outcome) continue;
      num_bytes -= found->second.num_bytes;
      entries.erase(found);
      oldest = ages.erase(oldest);
    }
  }

  const std::shared_ptr<const GrammarBuilder> builder;
  const GrammarCompilerOptions options;
  std::mutex mutex;  // guards all below
  std::condition_variable changed;
  std::map<GrammarSpec, Entry> entries;
  std::list<GrammarSpec> ages;  // the latest used first
  int64_t num_bytes = 0;
  int num_running = 0;
};

GrammarCompiler::GrammarCompiler(std::shared_ptr<const GrammarBuilder> builder, const GrammarCompilerOptions& options)
    : core_(std::make_shared<Core>(std::move(builder), options)) {}

GrammarCompiler::~GrammarCompiler() = default;

int64_t GrammarCompiler::cached_bytes() const {
  const std::lock_guard lock(core_->mutex);
  return core_->num_bytes;
}

std::shared_ptr<const Grammar> GrammarCompiler::compile(const GrammarSpec& spec) {
  check_grammar(spec);
  Core& core = *core_;
  const auto deadline = std::chrono::steady_clock::now() + core.options.time_limit;
  std::unique_lock lock(core.mutex);
  while (true) {
    const auto found = core.entries.find(spec);
    if (found != core.entries.end() && found->second.outcome) {
      core.ages.splice(core.ages.begin(), core.ages, found->second.age);
      const Outcome& outcome = *found->second.outcome;
      if (!outcome.grammar) throw Error(outcome.code, outcome.error);
      return outcome.grammar;
    }
    if (found == core.entries.end() && core.num_running < core.options.max_running) {
      core.ages.push_front(spec);
      core.entries[spec].age = core.ages.begin();
      ++core.num_running;
      std::thread([shared = core_, spec] { shared->build(spec); }).detach();
    }
    if (core.changed.wait_until(lock, deadline) == std::cv_status::timeout) {
      const auto& entries = core.entries;
      const bool others = !entries.contains(spec);
      if (!others && entries.at(spec).outcome) continue;
      fail(ErrorCode::kInvalid, "{}",
           others ? "other grammars keep the compiler busy" : "is too complex: takes longer than 5 s to compile");
    }
  }
}

}  // namespace octet
