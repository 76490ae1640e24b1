// The checks of an op's arguments, with named dimensions that bind across arguments:
//   ShapeCheck check("rms_norm");
//   check.tensor("x", x, {"T", "H"});  check.tensor("weight", weight, {"H"});
//   -> Error{kInternal}: "rms_norm: weight: dimension H is 576 in x, 512 here"
#pragma once

#include <array>
#include <initializer_list>
#include <string_view>

#include "octet/tensor/quant_format.h"
#include "octet/tensor/tensor.h"

namespace octet {

class ShapeCheck {
 public:
  explicit ShapeCheck(std::string_view op) : op_(op) {}

  void tensor(std::string_view name, const ConstTensor& tensor, std::initializer_list<std::string_view> dims);
  void dtype(std::string_view name, const ConstTensor& tensor, std::initializer_list<DType> allowed);
  // Data [rows, cols] and the scale and zero points its format asks for.
  void quantized(std::string_view name, const ConstQuantTensor& tensor, std::initializer_list<std::string_view> dims);
  void that(bool condition, std::string_view what);
  // Binds a dimension given as a plain number.
  void dim(std::string_view dim_name, int64_t value, std::string_view where);

 private:
  struct Binding {
    std::string_view dim;
    int64_t value;
    std::string_view where;
  };
  std::string_view op_;
  std::array<Binding, 12> bindings_{};
  size_t num_bindings_ = 0;
};

}  // namespace octet
