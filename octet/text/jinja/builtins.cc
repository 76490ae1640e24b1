// Binding of arguments, and the methods of list, tuple and dict.
#include "octet/text/jinja/builtins.h"

#include <algorithm>

#include "octet/text/jinja/interpreter.h"
#include "octet/text/jinja/method_rows.h"
#include "octet/text/jinja/operations.h"

namespace octet::jinja {
namespace {

class BoundMethod : public Callable {
 public:
  BoundMethod(Value self, const MethodRow& row) : Callable(std::string(row.name)), self_(std::move(self)), row_(row) {}

  Value call(Interpreter& run, const Arguments& arguments) override {
    run.spend_bytes(self_.is_text() ? self_.text().bytes().size() : 0);
    return row_.call(run, self_, bind_arguments(row_.name, row_.parameters, arguments), arguments);
  }
  std::string type_name() const override { return "builtin_function_or_method"; }

 private:
  Value self_;
  const MethodRow& row_;
};

Value get_method(Interpreter& run, const Value& self, const Bound& bound, const Arguments&) {
  if (bound[0]->is_text()) run.spend_bytes(bound[0]->text().bytes().size());
  const Value* found = as_dict(self)->find(*bound[0]);
  return found ? *found : bound[1].value_or(Value(None{}));
}

template <DictPart part>
Value view_method(Interpreter& run, const Value& self, const Bound&, const Arguments&) {
  return Value(run.make<DictView>(self, part)).with_origin(self.origin());
}

Value copy_dict(Interpreter& run, const Value& self, const Bound&, const Arguments&) {
  auto* copy = run.make<Dict>();
  run.reserve_elements(Integer(as_dict(self)->items().size()));
  for (const auto& [key, value] : as_dict(self)->items()) copy->set(key, value);
  return Value(copy).with_origin(self.origin());
}

Value copy_list(Interpreter& run, const Value& self, const Bound&, const Arguments&) {
  return run.make_list(self.as<Sequence>()->items).with_origin(self.origin());
}

Value count_items(Interpreter& run, const Value& self, const Bound& bound, const Arguments&) {
  const auto& items = self.as<Sequence>()->items;
  return static_cast<int64_t>(
      std::count_if(items.begin(), items.end(), [&](const Value& item) { return equal(run, item, *bound[0]); }));
}

Value index_of_item(Interpreter& run, const Value& self, const Bound& bound, const Arguments&) {
  const auto& items = self.as<Sequence>()->items;
  const auto found =
      std::find_if(items.begin(), items.end(), [&](const Value& item) { return equal(run, item, *bound[0]); });
  if (found == items.end()) raise("the value is not in the {}", type_name(self));
  return static_cast<int64_t>(found - items.begin());
}

constexpr MethodRow kDictMethods[] = {{"get", "_key _default=?", get_method},
                                      {"items", "", view_method<DictPart::kItems>},
                                      {"keys", "", view_method<DictPart::kKeys>},
                                      {"values", "", view_method<DictPart::kValues>},
                                      {"copy", "", copy_dict}};
constexpr MethodRow kListMethods[] = {
    {"copy", "", copy_list}, {"count", "_value", count_items}, {"index", "_value", index_of_item}};
// What the sandbox hides because it changes its object.
constexpr std::string_view kHiddenDictMethods[] = {"clear", "pop", "popitem", "setdefault", "update", "fromkeys"};
constexpr std::string_view kHiddenListMethods[] = {"append", "clear", "pop",    "reverse",
                                                   "insert", "sort",  "extend", "remove"};

template <class Rows>
const MethodRow* find_row(const Rows& rows, std::string_view name) {
  const auto row = std::find_if(std::begin(rows), std::end(rows), [&](const MethodRow& r) { return r.name == name; });
  return row == std::end(rows) ? nullptr : &*row;
}

std::vector<std::string_view> words(std::string_view text) {
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    const size_t space = std::min(text.find(' '), text.size());
    parts.push_back(text.substr(0, space));
    text.remove_prefix(std::min(space + 1, text.size()));
  }
  return parts;
}

}  // namespace

Bound bind_arguments(std::string_view function, std::string_view parameters, const Arguments& arguments) {
  if (parameters == "*") return {};
  const std::vector<std::string_view> names = words(parameters);
  if (arguments.positional.size() > names.size()) {
    raise("{} takes at most {} argument(s), {} given", function, names.size(), arguments.positional.size());
  }
  Bound bound(names.size());
  std::copy(arguments.positional.begin(), arguments.positional.end(), bound.begin());
  for (const auto& [keyword, value] : arguments.named) {
    const std::string_view given = keyword;
    const auto matches = [given](std::string_view name) {
      return name.substr(0, name.find('=')) == given && !name.starts_with("_");
    };
    const auto found = std::find_if(names.begin(), names.end(), matches);
    if (found == names.end()) raise("{} got an unexpected keyword argument '{}'", function, given);
    auto& place = bound[static_cast<size_t>(found - names.begin())];
    if (place) raise("{} got two values for argument '{}'", function, given);
    place = value;
  }
  for (size_t i = 0; i < names.size(); ++i) {
    if (!bound[i] && !names[i].ends_with("=?")) raise("{} misses its argument '{}'", function, names[i]);
  }
  return bound;
}

std::optional<Value> find_method(Interpreter& run, const Value& object, std::string_view name) {
  const MethodRow* row = nullptr;
  const auto is_hidden = [&](const auto& hidden) {
    return std::find(std::begin(hidden), std::end(hidden), name) != std::end(hidden);
  };
  const auto hidden_method = [&] {
    return Value(Undefined{fmt::format("'{}' changes its object, which templates may not do", name)});
  };
  if (object.is_text()) {
    row = find_row(str_methods(), name);
  } else if (const auto* sequence = object.as<Sequence>()) {
    const bool list = sequence->type == SequenceType::kList;
    if (list && is_hidden(kHiddenListMethods)) return hidden_method();
    if (list || name != "copy") row = find_row(kListMethods, name);
    for (size_t i = 0; i < sequence->field_names.size(); ++i) {
      if (sequence->field_names[i] == name) return sequence->items[i];
    }
  } else if (object.as<Dict>()) {
    if (is_hidden(kHiddenDictMethods)) return hidden_method();
    row = find_row(kDictMethods, name);
  }
  if (!row) return std::nullopt;
  return Value(run.make<BoundMethod>(object, *row));
}

}  // namespace octet::jinja
