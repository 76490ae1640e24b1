#include "octet/evaluate/kl_divergence.h"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "octet/base/error.h"
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

void score_window(Engine& model, Engine& reference, const std::vector<int32_t>& window, Totals& totals) {
  const auto vocab = static_cast<size_t>(reference.model_config().vocab_size);
  std::vector<float> rows(window.size() * vocab);
  for_each_logits(reference, window, [&](int64_t position, std::span<const float> logits) {
    if (logits.size() != vocab) fail(ErrorCode::kInternal, "{} logits, the vocabulary has {}", logits.size(), vocab);
    std::copy(logits.begin(), logits.end(), rows.begin() + position * static_cast<int64_t>(vocab));
  });
  std::mutex mutex;
  double window_sum = 0.0;
  for_each_logits(model, window, [&](int64_t position, std::span<const float> logits) {
    const std::span<const float> expected(rows.data() + static_cast<size_t>(position) * vocab, vocab);
    const RowDivergence row = row_divergence(expected, logits);
    const bool scored = position + 1 < static_cast<int64_t>(window.size());
    double nll = 0.0, reference_nll = 0.0;
    if (scored) {
      const auto next = static_cast<size_t>(window[static_cast<size_t>(position) + 1]);
      nll = log_sum_exp(logits) - static_cast<double>(logits[next]);
      reference_nll = log_sum_exp(expected) - static_cast<double>(expected[next]);
    }
    std::lock_guard lock(mutex);
    totals.kl.push_back(row.kl);
    totals.num_same += row.same_top1;
    totals.num_scored += scored;
    totals.nll += nll;
    totals.reference_nll += reference_nll;
    window_sum += row.kl;
  });
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
  Totals totals;
  KlDivergenceResult result;
  for (const std::vector<int32_t>& window : windows) {
    score_window(model, reference, window, totals);
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
