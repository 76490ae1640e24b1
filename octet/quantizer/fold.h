// Fold: what moving magnitude between a linear's input and its weight (smoothing.h) does to one tensor. A linear's
// weight has its columns multiplied, since its input comes divided; what makes that input (a norm's weight, or another
// linear's rows and bias) is divided. Both are exact before anything is rounded.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace octet {

struct Fold {
  std::vector<float> columns;  // by which columns are multiplied; empty: none
  std::vector<float> rows;     // by which rows are divided; of a tensor of rank 1 its elements; empty: none

  bool empty() const { return columns.empty() && rows.empty(); }
};

using Folds = std::map<std::string, Fold, std::less<>>;  // by the tensor's name

}  // namespace octet
