#include "octet/tensor/quant_format.h"

namespace octet {

Shape QuantFormat::scale_shape(int64_t rows, int64_t cols) const {
  const auto ceil_div = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  switch (granularity) {
    case Granularity::kNone:
      return Shape{0};
    case Granularity::kTensor:
      return Shape{1};
    case Granularity::kChannel:
    case Granularity::kToken:
      return Shape{rows};
    case Granularity::kGroup:
      return Shape{rows, ceil_div(cols, group_cols)};
    case Granularity::kBlock:
      return Shape{ceil_div(rows, group_rows), ceil_div(cols, group_cols)};
  }
  return Shape{0};
}

Shape QuantFormat::stack_scale_shape(int64_t count, int64_t rows, int64_t cols) const {
  const Shape each = scale_shape(rows, cols);
  Shape all{count};
  for (int i = 0; i < each.rank(); ++i) all.append(each[i]);
  return all;
}

std::string QuantFormat::to_string() const {
  std::string text(dtype_name(dtype));
  switch (granularity) {
    case Granularity::kNone:
      return text;
    case Granularity::kTensor:
      text += " per tensor";
      break;
    case Granularity::kChannel:
      text += " per channel";
      break;
    case Granularity::kToken:
      text += " per token";
      break;
    case Granularity::kGroup:
      text += fmt::format(" per group of {}", group_cols);
      break;
    case Granularity::kBlock:
      text += fmt::format(" per {}x{} block", group_rows, group_cols);
      break;
  }
  if (dynamic) text += " (dynamic)";
  if (zero_point) text += " with zero points";
  if (power_of_two) text += ", scales powers of two";
  if (amax_cap > 0.0f) text += fmt::format(", amax at most {}", amax_cap);
  return text;
}

}  // namespace octet
