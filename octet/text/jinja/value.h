// Values of the interpreter, with Python's types. Scalars and strings are held by value; lists, dicts, functions and
// the like are objects on a Heap that lives as long as one rendering, so cycles (a namespace that holds itself) need no
// care.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "octet/base/error.h"
#include "octet/text/jinja/text.h"

namespace octet::jinja {

// Where Python would raise. Becomes Error{kInvalid} with template and line at the interpreter's edge.
class Raised : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};
// raise_exception: the text is the template's own, for the caller to see as it is.
class RaisedByTemplate : public Raised {
 public:
  using Raised::Raised;
};
template <class... Args>
[[noreturn]] void raise(fmt::format_string<Args...> format, Args&&... args) {
  throw Raised(fmt::format(format, std::forward<Args>(args)...));
}

// Python's int has no bound; 128 bits hold what JSON and templates use, and beyond that is an error.
__extension__ typedef __int128 Integer;
__extension__ typedef unsigned __int128 UnsignedInteger;

struct Undefined {
  std::string hint;  // "'x' is undefined", for errors
};
struct None {};

enum class ObjectKind { kSequence, kDict, kDictView, kRange, kIterator, kNamespace, kCallable, kScope };

class Object {
 public:
  explicit Object(ObjectKind kind) : kind_(kind) {}
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  virtual ~Object() = default;
  ObjectKind kind() const { return kind_; }

 private:
  ObjectKind kind_;
};

class Value {
 public:
  // In the order of the variant's alternatives.
  enum class Kind { kUndefined, kNone, kBool, kInteger, kFloat, kText, kObject };

  Value() = default;
  Value(Undefined undefined) : held_(std::move(undefined)) {}
  Value(None none) : held_(none) {}
  Value(bool value) : held_(value) {}
  Value(Integer value) : held_(value) {}
  Value(int64_t value) : held_(Integer{value}) {}
  Value(int value) : held_(Integer{value}) {}
  Value(double value) : held_(value) {}
  Value(Text text) : held_(std::move(text)) {}
  Value(Object* object) : held_(object) {}
  Value(const char*) = delete;  // a literal would turn into bool: say Text::trusted

  Kind kind() const { return static_cast<Kind>(held_.index()); }
  bool is_undefined() const { return kind() == Kind::kUndefined; }
  bool is_none() const { return kind() == Kind::kNone; }
  bool is_bool() const { return kind() == Kind::kBool; }
  bool is_integer() const { return kind() == Kind::kInteger; }  // not for bool
  bool is_float() const { return kind() == Kind::kFloat; }
  bool is_text() const { return kind() == Kind::kText; }

  const Undefined& undefined() const { return std::get<Undefined>(held_); }
  bool boolean() const { return std::get<bool>(held_); }
  Integer integer() const { return std::get<Integer>(held_); }
  double floating() const { return std::get<double>(held_); }
  const Text& text() const { return std::get<Text>(held_); }
  Object* object() const { return kind() == Kind::kObject ? std::get<Object*>(held_) : nullptr; }

  // The object if it is a T, else null.
  template <class T>
  T* as() const {
    Object* held = object();
    return held && held->kind() == T::kKind ? static_cast<T*>(held) : nullptr;
  }

  // Where the printed form of a scalar, or the brackets of a container, come from. A text has its own runs.
  TextOrigin origin() const { return is_text() ? text().origin() : origin_; }
  Value with_origin(TextOrigin origin) const;

 private:
  std::variant<Undefined, None, bool, Integer, double, Text, Object*> held_;
  TextOrigin origin_ = TextOrigin::kTrusted;
};

inline Value trusted(std::string_view utf8) { return Text::trusted(utf8); }

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

enum class SequenceType { kList, kTuple };

struct Sequence : Object {
  static constexpr ObjectKind kKind = ObjectKind::kSequence;
  Sequence(SequenceType t, std::vector<Value> i) : Object(kKind), type(t), items(std::move(i)) {}
  SequenceType type;
  std::vector<Value> items;
  std::vector<std::string_view> field_names;  // of a named tuple (what groupby yields): static strings
};

// Keys keep the order of insertion. Nothing is ever removed: the sandbox forbids it.
class Dict : public Object {
 public:
  static constexpr ObjectKind kKind = ObjectKind::kDict;
  Dict() : Object(kKind) {}
  const Value* find(const Value& key) const;  // raises for an unhashable key
  const Value* find_text(std::string_view key) const;
  void set(const Value& key, Value value);
  const std::vector<std::pair<Value, Value>>& items() const { return items_; }

 private:
  std::vector<std::pair<Value, Value>> items_;
  std::unordered_map<std::string, size_t> index_;  // by hash_key()
};

// A form of a hashable value that is equal exactly where Python's == and hash are (1, 1.0 and True share one); raises
// for lists, dicts and namespaces.
std::string hash_key(const Value& value);

enum class DictPart { kKeys, kValues, kItems };

struct DictView : Object {
  static constexpr ObjectKind kKind = ObjectKind::kDictView;
  DictView(Value d, DictPart p) : Object(kKind), dict(std::move(d)), part(p) {}
  Value dict;
  DictPart part;
};

struct Range : Object {
  static constexpr ObjectKind kKind = ObjectKind::kRange;
  Range(int64_t b, int64_t e, int64_t s) : Object(kKind), begin(b), end(e), step(s) {}
  int64_t length() const;
  int64_t begin, end, step;
};

// A generator: one pass, no length, evaluated as it is asked.
struct Iterator : Object {
  static constexpr ObjectKind kKind = ObjectKind::kIterator;
  explicit Iterator(std::function<std::optional<Value>()> n) : Object(kKind), next(std::move(n)) {}
  std::function<std::optional<Value>()> next;
};

struct Namespace : Object {
  static constexpr ObjectKind kKind = ObjectKind::kNamespace;
  Namespace() : Object(kKind) {}
  std::unordered_map<std::string, Value> attributes;
};

class Interpreter;

// Macros, bound methods, global functions, `loop`, cyclers.
class Callable : public Object {
 public:
  static constexpr ObjectKind kKind = ObjectKind::kCallable;
  explicit Callable(std::string n) : Object(kKind), name(std::move(n)) {}
  virtual Value call(Interpreter& interpreter, const Arguments& arguments) = 0;
  virtual bool can_call() const { return true; }
  virtual std::optional<Value> attribute(Interpreter&, std::string_view) { return std::nullopt; }
  virtual std::string type_name() const { return "function"; }
  std::string name;
};

// Owns every object of one rendering.
class Heap {
 public:
  template <class T, class... Args>
  T* make(Args&&... args) {
    auto object = std::make_unique<T>(std::forward<Args>(args)...);
    T* raw = object.get();
    objects_.push_back(std::move(object));
    return raw;
  }

 private:
  std::vector<std::unique_ptr<Object>> objects_;
};

}  // namespace octet::jinja
