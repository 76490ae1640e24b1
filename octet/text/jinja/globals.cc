// Global functions.
#include <algorithm>
#include <ctime>

#include "octet/text/jinja/builtins.h"
#include "octet/text/jinja/interpreter.h"
#include "octet/text/jinja/operations.h"

namespace octet::jinja {
namespace {

constexpr int64_t kMaxRange = 100'000;  // the sandbox's MAX_RANGE
constexpr int64_t kMaxRangeBound = INT32_MAX;

struct GlobalRow {
  std::string_view name, parameters;
  Value (*call)(Interpreter& interpreter, const Bound& bound, const Arguments& arguments);
};

class GlobalFunction : public Callable {
 public:
  explicit GlobalFunction(const GlobalRow& row) : Callable(std::string(row.name)), row_(row) {}
  Value call(Interpreter& run, const Arguments& arguments) override {
    return row_.call(run, bind_arguments(row_.name, row_.parameters, arguments), arguments);
  }

 private:
  const GlobalRow& row_;
};

Value range_function(Interpreter& run, const Bound& bound, const Arguments&) {
  const auto argument = [&](size_t i) {
    const int64_t value = need_int64(*bound[i], "range");
    if (value > kMaxRangeBound || value < -kMaxRangeBound) raise("range: {} is too large", value);
    return value;
  };
  const int64_t begin = bound[1] ? argument(0) : 0, end = bound[1] ? argument(1) : argument(0),
                step = bound[2] ? argument(2) : 1;
  if (step == 0) raise("range: the step must not be zero");
  auto* range = run.make<Range>(begin, end, step);
  if (range->length() > kMaxRange) raise("Range too big. The sandbox blocks ranges larger than {}.", kMaxRange);
  return Value(range);
}

void fill(Interpreter& run, Dict& dict, const Arguments& arguments) {
  if (arguments.positional.size() > 1) raise("dict takes at most 1 positional argument");
  if (!arguments.positional.empty()) {
    const Value& source = arguments.positional[0];
    if (const Dict* other = as_dict(source)) {
      for (const auto& [key, value] : other->items()) dict.set(key, value);
      run.spend(static_cast<int64_t>(other->items().size()));
    } else {
      for (const Value& pair : to_vector(run, source)) {
        const std::vector<Value> parts = to_vector(run, pair);
        if (parts.size() != 2) raise("dict: expected pairs");
        dict.set(parts[0], parts[1]);
      }
    }
  }
  for (const auto& [name, value] : arguments.named) dict.set(trusted(name), value);
}

Value dict_function(Interpreter& run, const Bound&, const Arguments& arguments) {
  auto* dict = run.make<Dict>();
  fill(run, *dict, arguments);
  return Value(dict);
}

Value namespace_function(Interpreter& run, const Bound&, const Arguments& arguments) {
  Dict initial;
  fill(run, initial, arguments);
  auto* space = run.make<Namespace>();
  for (const auto& [key, value] : initial.items())
    space->attributes[std::string(need_text(key, "namespace").bytes())] = value;
  return Value(space);
}

Value raise_function(Interpreter& run, const Bound& bound, const Arguments&) {
  throw RaisedByTemplate(std::string(to_text(run, *bound[0]).bytes()));
}

// datetime.now() knows no time zone: %Z and %z are empty; %f are the microseconds, of which we have none.
Value strftime_function(Interpreter& run, const Bound& bound, const Arguments&) {
  const std::string_view format = need_text(*bound[0], "strftime_now").bytes();
  const auto now = static_cast<time_t>(run.now_unix_seconds().value_or(static_cast<int64_t>(std::time(nullptr))));
  std::tm local{};
  if (!localtime_r(&now, &local)) raise("strftime_now: the time is out of range");
  std::string text;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 == format.size()) {
      text.push_back(format[i]);
      continue;
    }
    std::string field = "%";
    while (++i < format.size() - 1 && std::string_view("-_0^#EO").find(format[i]) != std::string_view::npos)
      field += format[i];
    field += format[i];
    if (field == "%f") text += "000000";
    if (field == "%f" || field == "%Z" || field == "%z") continue;
    char buffer[256];
    const size_t written = std::strftime(buffer, sizeof buffer, field.c_str(), &local);
    text.append(buffer, written);
  }
  run.reserve_text(Integer(text.size()));
  return Text(to_valid_utf8(text), bound[0]->origin());
}

// cycler(a, b, ...) with next(), reset() and current.
class Cycler : public Callable {
 public:
  explicit Cycler(std::vector<Value> items) : Callable("cycler"), items_(std::move(items)) {}
  bool can_call() const override { return false; }
  std::string type_name() const override { return "Cycler"; }
  Value call(Interpreter&, const Arguments&) override { raise("'Cycler' object is not callable"); }

  std::optional<Value> attribute(Interpreter& run, std::string_view wanted) override {
    if (wanted == "current") return items_[position_];
    if (wanted == "next" || wanted == "reset") return Value(run.make<Step>(std::string(wanted), *this));
    return std::nullopt;
  }

 private:
  class Step : public Callable {
   public:
    Step(std::string step_name, Cycler& cycler) : Callable(std::move(step_name)), cycler_(cycler) {}
    Value call(Interpreter&, const Arguments&) override {
      const Value current = cycler_.items_[cycler_.position_];
      cycler_.position_ = name == "reset" ? 0 : (cycler_.position_ + 1) % cycler_.items_.size();
      return name == "reset" ? Value(None{}) : current;
    }

   private:
    Cycler& cycler_;
  };

  std::vector<Value> items_;
  size_t position_ = 0;
};

Value cycler_function(Interpreter& run, const Bound&, const Arguments& arguments) {
  if (arguments.positional.empty()) raise("at least one item has to be provided");
  return Value(run.make<Cycler>(arguments.positional));
}

// joiner(", "): "" the first time it is called, then the separator.
class Joiner : public Callable {
 public:
  explicit Joiner(Value separator) : Callable("joiner"), separator_(std::move(separator)) {}
  Value call(Interpreter&, const Arguments&) override {
    const bool first = !std::exchange(used_, true);
    return first ? Value(Text()) : separator_;
  }

 private:
  Value separator_;
  bool used_ = false;
};

Value joiner_function(Interpreter& run, const Bound& bound, const Arguments&) {
  return Value(run.make<Joiner>(bound[0].value_or(trusted(", "))));
}

constexpr GlobalRow kRows[] = {
    {"cycler", "*", cycler_function},
    {"dict", "*", dict_function},
    {"joiner", "sep=?", joiner_function},
    {"namespace", "*", namespace_function},
    {"raise_exception", "message", raise_function},
    {"range", "_start _stop=? _step=?", range_function},
    {"strftime_now", "format", strftime_function},
};

}  // namespace

std::optional<Value> find_global(Interpreter& run, std::string_view name) {
  const auto* row =
      std::find_if(std::begin(kRows), std::end(kRows), [&](const GlobalRow& r) { return r.name == name; });
  if (row == std::end(kRows)) return std::nullopt;
  return Value(run.make<GlobalFunction>(*row));
}

}  // namespace octet::jinja
