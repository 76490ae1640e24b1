#include "octet/quantizer/model_comparison.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "octet/sampling/logit_divergence.h"

namespace octet {
namespace {

// Of Student's t with so many degrees of freedom, two-sided 95 %; the normal distribution's beyond the table.
double t_quantile(size_t degrees) {
  constexpr double kTable[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
                               2.201,  2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
                               2.080,  2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042};
  if (degrees == 0) return std::nan("");  // one observation says nothing of its spread
  return degrees <= std::size(kTable) ? kTable[degrees - 1] : 1.960;
}

double standard_error(const std::vector<double>& values) {
  const auto n = static_cast<double>(values.size());
  if (values.size() < 2) return std::nan("");
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  double squares = 0.0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return std::sqrt(squares / (n - 1) / n);
}

}  // namespace

void ModelComparison::set_expected(ConstTensor logits) {
  expected_.resize(static_cast<size_t>(logits.dim(0) * vocab_size_));
  for (int64_t r = 0; r < logits.dim(0); ++r)
    std::copy_n(logits.row<float>(r), vocab_size_, expected_.begin() + r * vocab_size_);
}

void ModelComparison::add(ConstTensor logits, std::span<const int32_t> sample, int64_t begin) {
  const int64_t rows = logits.dim(0);
  const auto vocab = static_cast<size_t>(vocab_size_);
  struct Row {
    RowDivergence divergence;
    double nll = 0.0, source_nll = 0.0;
    bool scored = false;
  };
  std::vector<Row> found(static_cast<size_t>(rows));
  threads_.parallel_for(rows, 1, [&](int, int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      Row& row = found[static_cast<size_t>(r)];
      const std::span<const float> expected(expected_.data() + static_cast<size_t>(r) * vocab, vocab);
      const std::span<const float> ours(logits.row<float>(r), vocab);
      row.divergence = row_divergence(expected, ours);
      const auto next = static_cast<size_t>(begin + r + 1);
      row.scored = next < sample.size();
      if (!row.scored) continue;
      const auto token = static_cast<size_t>(sample[next]);
      row.nll = row.divergence.log_sum_exp - static_cast<double>(ours[token]);
      row.source_nll = row.divergence.reference_log_sum_exp - static_cast<double>(expected[token]);
    }
  });
  for (const Row& row : found) {
    kl_.push_back(row.divergence.kl);
    num_same_ += row.divergence.same_top1;
    num_scored_ += row.scored;
    nll_ += row.nll;
    source_nll_ += row.source_nll;
  }
}

void ModelComparison::end_sample() {
  const auto begin = kl_.begin() + static_cast<int64_t>(sample_begin_);
  if (begin == kl_.end()) return;
  sample_means_.push_back(std::accumulate(begin, kl_.end(), 0.0) / static_cast<double>(kl_.end() - begin));
  sample_begin_ = kl_.size();
}

ModelFigures ModelComparison::figures() const {
  std::vector<double> sorted = kl_;
  std::sort(sorted.begin(), sorted.end());
  const size_t n = sorted.size();
  if (n == 0) return {};
  const double mean = std::accumulate(kl_.begin(), kl_.end(), 0.0) / static_cast<double>(n);
  const double half = t_quantile(sample_means_.size() - 1) * standard_error(sample_means_);
  const auto scored = static_cast<double>(std::max<int64_t>(1, num_scored_));
  return {.kl_mean = mean,
          .kl_low = half > mean ? 0.0 : mean - half,
          .kl_high = mean + half,
          .kl_median = sorted[n / 2],
          .kl_p99 = sorted[std::min(n - 1, n * 99 / 100)],
          .kl_max = sorted.back(),
          .top1_agreement = static_cast<double>(num_same_) / static_cast<double>(n),
          .perplexity = std::exp(nll_ / scored),
          .source_perplexity = std::exp(source_nll_ / scored),
          .num_tokens = static_cast<int64_t>(n),
          .num_samples = static_cast<int64_t>(sample_means_.size())};
}

}  // namespace octet
