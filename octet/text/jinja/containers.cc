// Length, subscripts, slices and iteration of operations.h.
#include <algorithm>

#include "octet/text/jinja/operations.h"

namespace octet::jinja {
namespace {

// Marks a scalar that a caller's container yields (a key, an item) as the caller's.
Value element_of(const Value& container, Value element) {
  return container.origin() == TextOrigin::kUser && !element.is_text() ? element.with_origin(TextOrigin::kUser)
                                                                       : element;
}

std::optional<size_t> position(Integer index, int64_t size) {
  if (index < 0) index += size;
  if (index < 0 || index >= size) return std::nullopt;
  return static_cast<size_t>(index);
}

// Python's slice.indices(): every index that the slice takes.
struct Indices {
  int64_t begin, step, count;
};

Indices slice_indices(const Slice& slice, int64_t size) {
  const auto is_index = [](const Value& value) { return value.is_none() || as_integer(value).has_value(); };
  if (!is_index(slice.begin) || !is_index(slice.end) || !is_index(slice.step))
    raise("slice indices must be integers or None");
  const Integer step =
      slice.step.is_none() ? Integer{1} : std::clamp<Integer>(*as_integer(slice.step), -INT32_MAX, INT32_MAX);
  if (step == 0) raise("slice step cannot be zero");
  const Integer low = step < 0 ? -1 : 0, high = step < 0 ? size - 1 : size;
  const auto bound = [&](const Value& value, Integer otherwise) {
    if (value.is_none()) return otherwise;
    Integer index = *as_integer(value);
    if (index < 0) index = index < -Integer{INT64_MAX} ? low : index + size;
    return std::clamp(index, low, high);
  };
  const Integer begin = bound(slice.begin, step < 0 ? high : low), end = bound(slice.end, step < 0 ? low : high);
  Integer count = 0;
  if (step > 0 && begin < end) count = (end - begin - 1) / step + 1;
  if (step < 0 && begin > end) count = (begin - end - 1) / -step + 1;
  return Indices{static_cast<int64_t>(begin), static_cast<int64_t>(step), static_cast<int64_t>(count)};
}

Value slice_text(Runtime& runtime, const Text& text, const Indices& indices) {
  runtime.spend_bytes(text.bytes().size());
  if (indices.count == 0) return Text();
  if (indices.step == 1) {
    const size_t begin = text.byte_of(indices.begin);
    size_t end = begin;
    for (int64_t i = 0; i < indices.count; ++i) end += sequence_length(text.bytes()[end]);
    return text.slice_bytes(begin, end);
  }
  std::vector<size_t> starts;
  for (size_t at = 0; at < text.bytes().size(); at += sequence_length(text.bytes()[at])) starts.push_back(at);
  runtime.spend(static_cast<int64_t>(starts.size()));
  TextBuilder out;
  for (int64_t i = 0, index = indices.begin; i < indices.count; ++i, index += indices.step) {
    const size_t at = starts[static_cast<size_t>(index)];
    out.append(text, at, at + sequence_length(text.bytes()[at]));
  }
  return out.build();
}

}  // namespace

std::optional<int64_t> length(const Value& value) {
  if (value.is_text()) return value.text().length();
  if (value.is_undefined()) return 0;
  if (const auto* sequence = value.as<Sequence>()) return static_cast<int64_t>(sequence->items.size());
  if (const auto* dict = value.as<Dict>()) return static_cast<int64_t>(dict->items().size());
  if (const auto* view = value.as<DictView>()) return length(view->dict);
  if (const auto* range = value.as<Range>()) return range->length();
  return std::nullopt;
}

std::optional<Value> subscript(Runtime& runtime, const Value& object, const Value& index) {
  if (object.is_undefined()) raise_undefined(object);
  if (const auto* dict = object.as<Dict>()) {
    if (index.is_text()) runtime.spend_bytes(index.text().bytes().size());
    const auto* list = index.as<Sequence>();
    if (list && list->type == SequenceType::kList) return std::nullopt;
    if (index.as<Dict>() || index.as<Namespace>() || index.as<DictView>()) return std::nullopt;
    const Value* found = dict->find(index);
    return found ? std::optional(*found) : std::nullopt;
  }
  const auto integer = as_integer(index);
  const auto size = length(object);
  if (!integer || !size) return std::nullopt;
  const auto at = position(*integer, *size);
  if (!at) return std::nullopt;
  if (object.is_text()) {
    const Text& text = object.text();
    if (static_cast<size_t>(text.length()) != text.bytes().size()) runtime.spend_bytes(text.bytes().size());
    return Value(text.at(static_cast<int64_t>(*at)));
  }
  if (const auto* sequence = object.as<Sequence>()) return sequence->items[*at];
  if (const auto* range = object.as<Range>()) return Value(range->begin + range->step * static_cast<int64_t>(*at));
  return std::nullopt;
}

Value slice(Runtime& runtime, const Value& object, const Slice& slice) {
  if (object.is_undefined()) raise_undefined(object);
  const auto size = length(object);
  const auto* sequence = object.as<Sequence>();
  const auto* range = object.as<Range>();
  if (!size || (!object.is_text() && !sequence && !range)) raise("'{}' object cannot be sliced", type_name(object));
  const Indices indices = slice_indices(slice, *size);
  if (object.is_text()) return slice_text(runtime, object.text(), indices);
  if (range && indices.count <= 1) {  // a step that no element needs must not grow
    const int64_t begin = range->begin + (indices.count == 1 ? indices.begin * range->step : 0);
    return Value(runtime.make<Range>(begin, begin + indices.count, 1));
  }
  if (range) {
    return Value(runtime.make<Range>(range->begin + indices.begin * range->step,
                                     range->begin + (indices.begin + indices.count * indices.step) * range->step,
                                     range->step * indices.step));
  }
  std::vector<Value> items;
  runtime.reserve_elements(indices.count);
  for (int64_t i = 0, index = indices.begin; i < indices.count; ++i, index += indices.step) {
    items.push_back(sequence->items[static_cast<size_t>(index)]);
  }
  return runtime.make_sequence(sequence->type, std::move(items)).with_origin(object.origin());
}

bool is_iterable(const Value& value) {
  if (value.is_text() || value.is_undefined()) return true;
  return value.object() && !value.as<Callable>() && !value.as<Namespace>();
}

std::function<std::optional<Value>()> iterate(Runtime& runtime, const Value& value) {
  if (auto* iterator = value.as<Iterator>()) {
    return [&runtime, iterator] {
      runtime.spend(1);
      const Runtime::Nested nested(runtime);
      return iterator->next();
    };
  }
  if (!is_iterable(value)) raise("'{}' cannot be iterated", type_name(value));
  if (value.is_text()) {
    return [&runtime, text = value.text(), at = size_t{0}]() mutable -> std::optional<Value> {
      runtime.spend(1);
      if (at >= text.bytes().size()) return std::nullopt;
      const size_t begin = at;
      at += sequence_length(text.bytes()[at]);
      return Value(text.slice_bytes(begin, at));
    };
  }
  return [&runtime, value, at = size_t{0}]() mutable -> std::optional<Value> {
    runtime.spend(1);
    const auto size = length(value);
    if (at >= static_cast<size_t>(*size)) return std::nullopt;
    const size_t i = at++;
    if (const auto* sequence = value.as<Sequence>()) return sequence->items[i];
    if (const auto* range = value.as<Range>()) return Value(range->begin + range->step * static_cast<int64_t>(i));
    const auto* view = value.as<DictView>();
    const Value& dict = view ? view->dict : value;
    const auto& [key, held] = dict.as<Dict>()->items()[i];
    if (!view || view->part == DictPart::kKeys) return element_of(dict, key);
    if (view->part == DictPart::kValues) return held;
    return runtime.make_tuple({element_of(dict, key), held}).with_origin(dict.origin());
  };
}

std::vector<Value> to_vector(Runtime& runtime, const Value& value) {
  std::vector<Value> items;
  const auto next = iterate(runtime, value);
  while (auto item = next()) items.push_back(*std::move(item));
  return items;
}

}  // namespace octet::jinja
