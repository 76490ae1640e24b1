// Filters on sequences. Those that are generators in jinja2 are Iterators here: one pass, no length.
#include <algorithm>

#include "octet/text/jinja/filter_rows.h"
#include "octet/text/jinja/interpreter.h"
#include "octet/text/jinja/operations.h"
#include "octet/text/jinja/unicode.h"

namespace octet::jinja {
namespace {

bool flag(const std::optional<Value>& value) { return value && truthy(*value); }
bool given(const std::optional<Value>& value) { return value && !value->is_none(); }

Value fold_case(const Value& value) { return value.is_text() ? Value(lower(value.text())) : value; }

Value iterator_over(Interpreter& run, std::vector<Value> items) {
  return run.make_iterator([held = std::move(items), at = size_t{0}]() mutable -> std::optional<Value> {
    if (at >= held.size()) return std::nullopt;
    return held[at++];
  });
}

Value list_filter(Interpreter& run, const Value& subject, const Bound&, const Arguments&) {
  return run.make_list(to_vector(run, subject)).with_origin(subject.origin());
}

Value first_filter(Interpreter& run, const Value& subject, const Bound&, const Arguments&) {
  const auto item = iterate(run, subject)();
  return item ? *item : Value(Undefined{"No first item, sequence was empty."});
}

Value last_filter(Interpreter& run, const Value& subject, const Bound&, const Arguments&) {
  if (!length(subject)) raise("'{}' object is not reversible", type_name(subject));
  if (*length(subject) == 0) return Undefined{"No last item, sequence was empty."};
  if (auto last = subscript(run, subject, -1); last && !as_dict(subject)) return *std::move(last);
  return to_vector(run, subject).back();
}

Value items_filter(Interpreter& run, const Value& subject, const Bound&, const Arguments&) {
  if (subject.is_undefined()) return iterator_over(run, {});
  if (!as_dict(subject)) raise("Can only get item pairs from a mapping.");
  return iterator_over(run, to_vector(run, Value(run.make<DictView>(subject, DictPart::kItems))));
}

Value reverse_filter(Interpreter& run, const Value& subject, const Bound&, const Arguments&) {
  if (subject.is_text()) return slice(run, subject, {None{}, None{}, Value(-1)});
  std::vector<Value> items = to_vector(run, subject);
  std::reverse(items.begin(), items.end());
  return subject.as<Iterator>() ? run.make_list(std::move(items)) : iterator_over(run, std::move(items));
}

Value unique_filter(Interpreter& run, const Value& subject, const Bound& bound, const Arguments&) {
  const bool case_sensitive = flag(bound[0]);
  std::vector<Value> kept;
  auto* seen = run.make<Dict>();
  for (const Value& item : to_vector(run, subject)) {
    const Value at_path = get_path(run, item, bound[1]);
    const Value key = case_sensitive ? at_path : fold_case(at_path);
    if (seen->find(key)) continue;
    seen->set(key, true);
    kept.push_back(item);
  }
  return iterator_over(run, std::move(kept));
}

template <int sign>
Value extreme_filter(Interpreter& run, const Value& subject, const Bound& bound, const Arguments&) {
  std::optional<Value> best, best_key;
  const auto next = iterate(run, subject);
  while (const auto item = next()) {
    const Value at_path = get_path(run, *item, bound[1]);
    const Value key = flag(bound[0]) ? at_path : fold_case(at_path);
    if (best && !(sign < 0 ? less(run, key, *best_key) : less(run, *best_key, key))) continue;
    best = item;
    best_key = key;
  }
  return best ? *best : Value(Undefined{"No aggregated item, sequence was empty."});
}

Value sum_filter(Interpreter& run, const Value& subject, const Bound& bound, const Arguments&) {
  Value sum = bound[1].value_or(Value(0));
  if (sum.is_text()) raise("sum: cannot sum texts");
  const auto next = iterate(run, subject);
  while (const auto item = next()) sum = arithmetic(run, BinaryOp::kAdd, sum, get_path(run, *item, bound[0]));
  return sum;
}

// Sorts by the key; equal keys keep their order, also when reversed.
std::vector<Value> sorted(Interpreter& run, const std::vector<Value>& items,
                          const std::function<Value(const Value&)>& key_of, bool reversed) {
  std::vector<std::pair<Value, const Value*>> keyed;
  for (const Value& item : items) keyed.emplace_back(key_of(item), &item);
  if (keyed.size() > 1) {  // std::stable_sort never compares one element, nor does Python
    std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
      return reversed ? less(run, b.first, a.first) : less(run, a.first, b.first);
    });
  }
  std::vector<Value> result;
  for (const auto& [key, item] : keyed) result.push_back(*item);
  return result;
}

// "a,b" sorts by a, then by b.
std::vector<std::optional<Value>> paths_of(const std::optional<Value>& attribute) {
  if (!given(attribute)) return {std::nullopt};
  if (!attribute->is_text()) return {attribute};
  std::vector<std::optional<Value>> paths;
  const Text& text = attribute->text();
  size_t begin = 0;
  while (true) {
    const size_t comma = std::min(text.bytes().find(',', begin), text.bytes().size());
    paths.emplace_back(Value(text.slice_bytes(begin, comma)));
    if (comma == text.bytes().size()) return paths;
    begin = comma + 1;
  }
}

Value sort_filter(Interpreter& run, const Value& subject, const Bound& bound, const Arguments&) {
  const bool case_sensitive = flag(bound[1]);
  const auto paths = paths_of(bound[2]);
  const auto key_of = [&](const Value& item) {
    std::vector<Value> keys;
    for (const auto& path : paths) {
      const Value key = get_path(run, item, path);
      keys.push_back(case_sensitive ? key : fold_case(key));
    }
    return keys.size() == 1 ? keys[0] : run.make_tuple(std::move(keys));
  };
  return run.make_list(sorted(run, to_vector(run, subject), key_of, flag(bound[0])));
}

Value dictsort_filter(Interpreter& run, const Value& subject, const Bound& bound, const Arguments&) {
  if (subject.is_undefined()) raise_undefined(subject);
  if (!as_dict(subject)) raise("dictsort: expected a dict, found {}", type_name(subject));
  const std::string by = bound[1] && bound[1]->is_text() ? std::string(bound[1]->text().bytes()) : "key";
  if (by != "key" && by != "value") raise("dictsort: you can only sort by either \"key\" or \"value\"");
  const size_t part = by == "key" ? 0 : 1;
  const auto key_of = [&](const Value& pair) {
    const Value& key = pair.as<Sequence>()->items[part];
    return flag(bound[0]) ? key : fold_case(key);
  };
  const Value items(run.make<DictView>(subject, DictPart::kItems));
  return run.make_list(sorted(run, to_vector(run, items), key_of, flag(bound[2])));
}

Value groupby_filter(Interpreter& run, const Value& subject, const Bound& bound, const Arguments&) {
  const bool case_sensitive = flag(bound[2]);
  const auto fallback = given(bound[1]) ? bound[1] : std::nullopt;
  const auto key_of = [&](const Value& item) {
    const Value key = get_path(run, item, bound[0], fallback);
    return case_sensitive ? key : fold_case(key);
  };
  std::vector<Value> groups;
  std::optional<Value> current_key;
  Sequence* current = nullptr;
  for (const Value& item : sorted(run, to_vector(run, subject), key_of, false)) {
    const Value key = key_of(item);
    if (!current || !equal(run, key, *current_key)) {
      current_key = key;
      const Value members = run.make_list({});
      current = members.as<Sequence>();
      const Value group = run.make_tuple({get_path(run, item, bound[0], fallback), members});
      group.as<Sequence>()->field_names = {"grouper", "list"};
      groups.push_back(group);
    }
    current->items.push_back(item);
  }
  return run.make_list(std::move(groups));
}

Value batch_filter(Interpreter& run, const Value& subject, const Bound& bound, const Arguments&) {
  const int64_t size = need_int64(*bound[0], "batch");
  std::vector<Value> batches, batch;
  for (const Value& item : to_vector(run, subject)) {
    if (static_cast<int64_t>(batch.size()) == size) {
      batches.push_back(run.make_list(std::move(batch)));
      batch.clear();
    }
    batch.push_back(item);
  }
  if (!batch.empty()) {
    if (given(bound[1]) && static_cast<int64_t>(batch.size()) < size) {
      run.reserve_elements(size);
      batch.resize(static_cast<size_t>(size), *bound[1]);
    }
    batches.push_back(run.make_list(std::move(batch)));
  }
  return iterator_over(run, std::move(batches));
}

Value slice_filter(Interpreter& run, const Value& subject, const Bound& bound, const Arguments&) {
  const std::vector<Value> items = to_vector(run, subject);
  const int64_t slices = need_int64(*bound[0], "slice"), size = static_cast<int64_t>(items.size());
  if (slices == 0) raise("slice: division by zero");
  if (slices > 0) run.reserve_elements(slices);
  std::vector<Value> result;
  int64_t begin = 0;
  for (int64_t i = 0; i < slices; ++i) {
    const bool has_extra = i < size % slices;
    const int64_t end = begin + size / slices + (has_extra ? 1 : 0);
    std::vector<Value> part(items.begin() + begin, items.begin() + end);
    if (given(bound[1]) && !has_extra) part.push_back(*bound[1]);
    result.push_back(run.make_list(std::move(part)));
    begin = end;
  }
  return iterator_over(run, std::move(result));
}

// map(attribute="a", default=x) or map("filter", arguments...).
Value map_filter(Interpreter& run, const Value& subject, const Bound&, const Arguments& arguments) {
  if (!truthy(subject)) return iterator_over(run, {});
  const auto next = iterate(run, subject);
  if (arguments.positional.empty()) {
    static constexpr std::string_view kParameters = "attribute default=?";
    const Bound bound = bind_arguments("map", kParameters, arguments);
    return run.make_iterator([&run, next, bound]() -> std::optional<Value> {
      const auto item = next();
      if (!item) return std::nullopt;
      return get_path(run, *item, bound[0], given(bound[1]) ? bound[1] : std::nullopt);
    });
  }
  const std::string name(need_text(arguments.positional[0], "map").bytes());
  Arguments rest = arguments;
  rest.positional.erase(rest.positional.begin());
  return run.make_iterator([&run, next, name, rest]() -> std::optional<Value> {
    const auto item = next();
    if (!item) return std::nullopt;
    return run.apply_filter(name, *item, rest);
  });
}

enum class Keep { kPassing, kFailing };
enum class Look { kAtItem, kAtAttribute };

// select("test", ...), reject, selectattr("attribute", "test", ...), rejectattr; without a test by truth.
template <Keep keep, Look look>
Value select_filter(Interpreter& run, const Value& subject, const Bound&, const Arguments& arguments) {
  if (!truthy(subject)) return iterator_over(run, {});
  const auto next = iterate(run, subject);
  Arguments rest = arguments;
  const auto take_first = [&]() -> std::optional<Value> {
    if (rest.positional.empty()) return std::nullopt;
    const Value first = rest.positional.front();
    rest.positional.erase(rest.positional.begin());
    return first;
  };
  std::optional<Value> path;
  if (look == Look::kAtAttribute) {
    path = take_first();
    if (!path) raise("Missing parameter for attribute name");
  }
  const auto test = take_first();
  const std::string name = test ? std::string(need_text(*test, "test").bytes()) : "";
  return run.make_iterator([&run, next, path, name, rest]() -> std::optional<Value> {
    while (auto item = next()) {
      const Value value = get_path(run, *item, path);
      const bool passes = name.empty() ? truthy(value) : run.apply_test(name, value, rest);
      if (passes == (keep == Keep::kPassing)) return item;
    }
    return std::nullopt;
  });
}

}  // namespace

Value get_path(Interpreter& run, const Value& value, const std::optional<Value>& path,
               const std::optional<Value>& fallback) {
  if (!given(path)) return value;
  if (!path->is_text()) {
    const Value found = run.get_item(value, *path);
    return found.is_undefined() && fallback ? *fallback : found;
  }
  Value at = value;
  const Text& text = path->text();
  for (size_t begin = 0; begin <= text.bytes().size();) {
    const size_t dot = std::min(text.bytes().find('.', begin), text.bytes().size());
    const Text part = text.slice_bytes(begin, dot);
    const bool digits = !part.empty() && std::all_of(part.bytes().begin(), part.bytes().end(),
                                                     [](char c) { return c >= '0' && c <= '9'; });
    at = run.get_item(at, digits && part.length() < 18
                              ? Value(static_cast<int64_t>(std::stoll(std::string(part.bytes()))))
                              : Value(part));
    if (at.is_undefined() && fallback) at = *fallback;
    begin = dot + 1;
  }
  return at;
}

const std::vector<Filter>& sequence_filters() {
  static const std::vector<Filter> kRows = {
      {"batch", "linecount fill_with=?", batch_filter},
      {"dictsort", "case_sensitive=? by=? reverse=?", dictsort_filter},
      {"first", "", first_filter},
      {"groupby", "attribute default=? case_sensitive=?", groupby_filter},
      {"items", "", items_filter},
      {"last", "", last_filter},
      {"list", "", list_filter},
      {"map", "*", map_filter},
      {"max", "case_sensitive=? attribute=?", extreme_filter<1>},
      {"min", "case_sensitive=? attribute=?", extreme_filter<-1>},
      {"reject", "*", select_filter<Keep::kFailing, Look::kAtItem>},
      {"rejectattr", "*", select_filter<Keep::kFailing, Look::kAtAttribute>},
      {"reverse", "", reverse_filter},
      {"select", "*", select_filter<Keep::kPassing, Look::kAtItem>},
      {"selectattr", "*", select_filter<Keep::kPassing, Look::kAtAttribute>},
      {"slice", "slices fill_with=?", slice_filter},
      {"sort", "reverse=? case_sensitive=? attribute=?", sort_filter},
      {"sum", "attribute=? start=?", sum_filter},
      {"unique", "case_sensitive=? attribute=?", unique_filter},
  };
  return kRows;
}

}  // namespace octet::jinja
