#include "octet/quantizer/gptq.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "octet/base/error.h"
#include "octet/base/log.h"
#include "octet/quant/weight_rows.h"

namespace octet {
namespace {

constexpr int64_t kRowsAtOnce = 256;  // of the Hessian
constexpr int kMostRaises = 3;
constexpr int64_t kColumnsAtOnce = 32;  // of the factor
constexpr size_t kLanes = 16;           // rows of a weight that are rounded together

double dot(const double* a, const double* b, int64_t count) {
  std::array<double, 4> sums{};
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    for (size_t lane = 0; lane < 4; ++lane)
      sums[lane] += a[i + static_cast<int64_t>(lane)] * b[i + static_cast<int64_t>(lane)];
  }
  for (; i < count; ++i) sums[0] += a[i] * b[i];
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

std::array<float, 256> make_reals(DType dtype) {
  std::array<float, 256> reals{};
  for (size_t code = 0; code < reals.size(); ++code) {
    const auto byte = static_cast<uint8_t>(code);
    reals[code] = dtype == DType::kI8 ? static_cast<float>(static_cast<int8_t>(byte)) : to_f32(F8E4M3{byte});
  }
  return reals;
}

}  // namespace

float scale_at(const QuantTensor& matrix, int64_t row, int64_t column) {
  const float* scales = matrix.scale.data<float>();
  const QuantFormat& format = matrix.format;
  if (format.granularity == Granularity::kChannel) return scales[row];
  if (format.granularity == Granularity::kBlock)
    return scales[row / format.group_rows * matrix.scale.dim(1) + column / format.group_cols];
  OCTET_CHECK(format.granularity == Granularity::kTensor);
  return scales[0];
}

Hessian::Hessian(int64_t num_channels)
    : num_channels_(num_channels), lower_(static_cast<size_t>(num_channels * num_channels), 0.0f) {}

void Hessian::add(const Backend& backend, ConstTensor x) {
  const int64_t tokens = x.dim(0), k = num_channels_;
  std::vector<float> transposed(static_cast<size_t>(k * tokens));
  backend.launch().threads->parallel_for(k, 16, [&](int, int64_t begin, int64_t end) {
    for (int64_t t = 0; t < tokens; ++t) {
      const float* row = x.row<float>(t);
      for (int64_t c = begin; c < end; ++c) transposed[static_cast<size_t>(c * tokens + t)] = row[c];
    }
  });
  const ConstTensor channels(reinterpret_cast<const std::byte*>(transposed.data()), DType::kF32, Shape{k, tokens});
  std::vector<float> products(static_cast<size_t>(std::min(k, kRowsAtOnce) * k));
  for (int64_t first = 0; first < k; first += kRowsAtOnce) {
    const int64_t rows = std::min(kRowsAtOnce, k - first), columns = first + rows;
    const Tensor out(reinterpret_cast<std::byte*>(products.data()), DType::kF32, Shape{rows, columns});
    backend(MatmulOp{.out = out,
                     .x = ConstQuantTensor(channels.rows(first, rows)),
                     .weight = ConstQuantTensor(channels.rows(0, columns))});
    for (int64_t r = 0; r < rows; ++r) {
      float* to = lower_.data() + (first + r) * k;
      const float* from = out.row<float>(r);
      for (int64_t c = 0; c <= first + r; ++c) to[c] += from[c];
    }
  }
}

void Hessian::divide(std::span<const float> by) {
  OCTET_CHECK(static_cast<int64_t>(by.size()) == num_channels_);
  const auto k = by.size();
  for (size_t i = 0; i < k; ++i) {
    for (size_t j = 0; j <= i; ++j) lower_[i * k + j] /= by[i] * by[j];
  }
}

HessianFactor::HessianFactor(const Hessian& hessian, const std::string& name, ThreadPool& threads, Damping kind)
    : num_channels_(hessian.num_channels()), kind_(kind), order_(static_cast<size_t>(hessian.num_channels())) {
  std::iota(order_.begin(), order_.end(), int64_t{0});
  // The last place is rounded first.
  std::stable_sort(order_.begin(), order_.end(),
                   [&](int64_t a, int64_t b) { return hessian.at(a, a) < hessian.at(b, b); });
  for (int raises = 0; !factor(hessian, threads); ++raises) {
    if (raises == kMostRaises) {
      fail(ErrorCode::kModel,
           "{}: the products of its inputs are not positive definite, even damped by {}: more calibration text is "
           "needed, or another recipe",
           name, damping_);
    }
    damping_ *= 10.0;
    log_warning("{}: the products of its inputs are not positive definite; damped by {}", name, damping_);
  }
}

bool HessianFactor::factor(const Hessian& hessian, ThreadPool& threads) {
  const int64_t k = num_channels_;
  std::vector<double> lower(static_cast<size_t>(k * k), 0.0);
  const auto row_of = [&](int64_t i) { return lower.data() + i * k; };
  double mean = 0.0;
  for (int64_t i = 0; i < k; ++i) mean += static_cast<double>(hessian.at(i, i)) / static_cast<double>(k);
  for (int64_t i = 0; i < k; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      const int64_t a = order_[static_cast<size_t>(i)], b = order_[static_cast<size_t>(j)];
      row_of(i)[j] = static_cast<double>(hessian.at(std::max(a, b), std::min(a, b)));
    }
    double& square = row_of(i)[i];
    if (!(square > 0.0)) square = 1.0;
    square += damping_ * (kind_ == Damping::kByChannel ? square : mean);
  }
  for (int64_t begin = 0; begin < k; begin += kColumnsAtOnce) {
    const int64_t end = std::min(begin + kColumnsAtOnce, k);
    // What the columns before give, to all rows below at once.
    threads.parallel_for(k - begin, 8, [&](int, int64_t first, int64_t last) {
      for (int64_t i = begin + first; i < begin + last; ++i) {
        for (int64_t j = begin; j < std::min(end, i + 1); ++j) row_of(i)[j] -= dot(row_of(i), row_of(j), begin);
      }
    });
    for (int64_t j = begin; j < end; ++j) {
      const double square = row_of(j)[j] - dot(row_of(j) + begin, row_of(j) + begin, j - begin);
      if (!(square > 0.0)) return false;
      row_of(j)[j] = std::sqrt(square);
      for (int64_t i = j + 1; i < k; ++i)
        row_of(i)[j] = (row_of(i)[j] - dot(row_of(i) + begin, row_of(j) + begin, j - begin)) / row_of(j)[j];
    }
  }
  columns_.resize(static_cast<size_t>(k * k));
  threads.parallel_for(k, 16, [&](int, int64_t first, int64_t last) {
    for (int64_t j = first; j < last; ++j) {
      for (int64_t i = j; i < k; ++i) columns_[static_cast<size_t>(j * k + i)] = static_cast<float>(row_of(i)[j]);
    }
  });
  return true;
}

void round_with_hessian(ConstTensor weight, const HessianFactor& factor, QuantTensor out, ThreadPool& threads) {
  const int64_t n = weight.dim(0), k = weight.dim(1);
  const std::array<float, 256> reals = make_reals(out.format.dtype);
  const auto lanes = static_cast<int64_t>(kLanes);
  threads.parallel_for((n + lanes - 1) / lanes, 1, [&](int, int64_t begin, int64_t end) {
    std::vector<std::vector<float>> rows(kLanes, std::vector<float>(static_cast<size_t>(k)));
    std::vector<std::array<float, kLanes>> errors(static_cast<size_t>(k));  // q - w, by place
    for (int64_t group = begin; group < end; ++group) {
      const int64_t first = group * lanes, count = std::min(lanes, n - first);
      for (int64_t r = 0; r < count; ++r) read_weight_row(weight, first + r, rows[static_cast<size_t>(r)]);
      for (int64_t j = k - 1; j >= 0; --j) {
        const float* column = factor.column(j);
        std::array<float, kLanes> sums{};
        for (int64_t i = j + 1; i < k; ++i) {
          const auto& error = errors[static_cast<size_t>(i)];
          for (size_t r = 0; r < kLanes; ++r) sums[r] += error[r] * column[i];
        }
        const int64_t channel = factor.order()[static_cast<size_t>(j)];
        auto& error = errors[static_cast<size_t>(j)];
        for (size_t r = 0; r < static_cast<size_t>(count); ++r) {
          const int64_t row = first + static_cast<int64_t>(r);
          const float w = rows[r][static_cast<size_t>(channel)], scale = scale_at(out, row, channel);
          const float target = (w - sums[r] / column[j]) / scale;
          const auto code =
              out.format.dtype == DType::kI8 ? static_cast<uint8_t>(rounded_i8(target)) : masked_f8_e4m3(target).bits;
          out.data.bytes[row * k + channel] = static_cast<std::byte>(code);
          error[r] = reals[code] * scale - w;
        }
      }
    }
  });
}

}  // namespace octet
