// Weights::stack: linears of one shape side by side in memory, each loaded as if it were alone.
#include <algorithm>

#include "octet/base/error.h"
#include "octet/base/log.h"
#include "octet/checkpoint/linear_loader.h"

namespace octet {
namespace {

Shape stacked(int64_t count, const Shape& each) {
  Shape shape{count};
  for (int i = 0; i < each.rank(); ++i) shape.append(each[i]);
  return shape;
}

// The shapes of `count` linears like `each`.
LoadedLinear stack_of(int64_t count, LoadedLinear each) {
  OCTET_CHECK(each.bias.rank() == 0);
  for (Tensor* tensor : {&each.weight.data, &each.weight.scale}) {
    if (tensor->rank() > 0) *tensor = Tensor(nullptr, tensor->dtype, stacked(count, tensor->shape));
  }
  for (Tensor* tensor : {&each.input_scale, &each.input_zero_point}) {
    if (tensor->rank() > 0) *tensor = Tensor(nullptr, tensor->dtype, Shape{count});
  }
  return each;
}

// The memory of linear i.
LoadedLinear part_of(const LoadedLinear& stack, int64_t i) {
  LoadedLinear part = stack;
  part.weight.data = stack.weight.data.slice(i);
  if (stack.weight.scale) part.weight.scale = stack.weight.scale.slice(i);
  if (stack.input_scale) part.input_scale = stack.input_scale.rows(i, 1);
  if (stack.input_zero_point) part.input_zero_point = stack.input_zero_point.rows(i, 1);
  return part;
}

}  // namespace

LoadedLinear Weights::stack(std::span<const LinearRequest> requests, std::string_view name) const {
  OCTET_CHECK(!requests.empty());
  std::vector<LinearLoader> loaders;
  loaders.reserve(requests.size());
  for (const LinearRequest& request : requests) loaders.emplace_back(*this, request);
  const LinearLoader& first = loaders.front();
  const bool agree = std::all_of(loaders.begin(), loaders.end(), [&](const LinearLoader& loader) {
    return loader.weight_format() == first.weight_format() && loader.activation() == first.activation();
  });
  if (!agree) {
    warn_once(
        fmt::format("{} have different schemes: all are held in {}", full_name(name), dtype_name(source_.plain_dtype)));
    for (LinearLoader& loader : loaders) loader.hold_in_plain();
  }
  const LoadedLinear described = stack_of(static_cast<int64_t>(loaders.size()), first.described());
  const LoadedLinear memory = allocate_linear(source_, described, full_name(name));
  for (size_t i = 0; i < loaders.size(); ++i) loaders[i].load_into(part_of(memory, static_cast<int64_t>(i)));
  return place_linear(source_, memory);
}

}  // namespace octet
