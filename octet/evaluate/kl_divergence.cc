#include "octet/evaluate/kl_divergence.h"

#include <algorithm>
#include <cmath>

#include "octet/base/error.h"
#include "octet/base/thread_pool.h"
#include "octet/evaluate/score.h"

namespace octet {
namespace {

struct Totals {
  std::vector<double> kl;  // every position
  std::vector<double> window_means;
  int64_t num_same = 0;
  double nll = 0.0, reference_nll = 0.0;
  int64_t num_scored = 0;
};

// [window.size(), vocab] logits of every position.
std::vector<float> window_logits(Engine& engine, const std::vector<int32_t>& window) {
  const auto vocab = static_cast<size_t>(engine.model_config().vocab_size);
  std::vector<float> rows(window.size() * vocab);
  for_each_logits(engine, window, [&](int64_t position, std::span<const float> logits) {
    if (logits.size() != vocab) fail(ErrorCode::kInternal, "{} logits, the vocabulary has {}", logits.size(), vocab);
    std::copy(logits.begin(), logits.end(), rows.begin() + position * static_cast<int64_t>(vocab));
  });
  return rows;
}

// Rows are compared here, by all threads, and not as the engine brings them: it has one thread for that.
void score_window(Engine& model, Engine& reference, const std::vector<int32_t>& window, ThreadPool& threads,
                  Totals& totals) {
  const auto vocab = static_cast<size_t>(reference.model_config().vocab_size);
  const std::vector<float> expected = window_logits(reference, window), found = window_logits(model, window);
  const auto row_of = [&](const std::vector<float>& rows, size_t i) {
    return std::span(rows).subspan(i * vocab, vocab);
  };
  std::vector<RowDivergence> rows(window.size());
  threads.parallel_for(static_cast<int64_t>(rows.size()), 1, [&](int, int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      rows[i] = row_divergence(row_of(expected, i), row_of(found, i));
    }
  });
  double window_sum = 0.0;
  for (size_t i = 0; i < rows.size(); ++i) {
    totals.kl.push_back(rows[i].kl);
    totals.num_same += rows[i].same_top1;
    window_sum += rows[i].kl;
    if (i + 1 == rows.size()) continue;
    const auto next = static_cast<size_t>(window[i + 1]);
    ++totals.num_scored;
    totals.nll += rows[i].log_sum_exp - static_cast<double>(row_of(found, i)[next]);
    totals.reference_nll += rows[i].reference_log_sum_exp - static_cast<double>(row_of(expected, i)[next]);
  }
  totals.window_means.push_back(window_sum / static_cast<double>(window.size()));
}

double standard_error(const std::vector<double>& values) {
  const auto n = static_cast<double>(values.size());
  if (n < 2) return 0.0;
  double sum = 0.0;
  for (const double v : values) sum += v;
  double squares = 0.0;
  for (const double v : values) squares += (v - sum / n) * (v - sum / n);
  return std::sqrt(squares / (n - 1) / n);
}

}  // namespace

KlDivergenceResult kl_divergence(Engine& model, Engine& reference, std::span<const std::vector<int32_t>> windows,
                                 const std::function<void(int64_t)>& on_window) {
  const int64_t vocab = model.model_config().vocab_size, reference_vocab = reference.model_config().vocab_size;
  if (vocab != reference_vocab) {
    fail(ErrorCode::kInvalid, "the model has {} tokens in its vocabulary, the reference {}", vocab, reference_vocab);
  }
  ThreadPool threads(ThreadPool::default_num_threads());
  Totals totals;
  KlDivergenceResult result;
  for (const std::vector<int32_t>& window : windows) {
    score_window(model, reference, window, threads, totals);
    ++result.num_windows;
    if (on_window) on_window(result.num_windows);
  }
  std::sort(totals.kl.begin(), totals.kl.end());
  const size_t n = totals.kl.size();
  double sum = 0.0;
  for (const double kl : totals.kl) sum += kl;
  result.num_tokens = static_cast<int64_t>(n);
  result.mean = sum / static_cast<double>(n);
  result.standard_error = standard_error(totals.window_means);
  result.median = totals.kl[n / 2];
  result.p99 = totals.kl[std::min(n - 1, n * 99 / 100)];
  result.max = totals.kl.back();
  result.top1_agreement = static_cast<double>(totals.num_same) / static_cast<double>(n);
  result.perplexity = std::exp(totals.nll / static_cast<double>(totals.num_scored));
  result.reference_perplexity = std::exp(totals.reference_nll / static_cast<double>(totals.num_scored));
  return result;
}

}  // namespace octet
