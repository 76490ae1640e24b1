// Mean, deviation and percentiles as numpy has them, so that figures compare with those of other benchmarks.
#pragma once

#include <vector>

namespace octet {

// All of an empty list are 0.
double mean(const std::vector<double>& values);
double standard_deviation(const std::vector<double>& values);  // of the population
// 0 <= percent <= 100; between two values linearly.
double percentile(std::vector<double> values, double percent);
double median(const std::vector<double>& values);

}  // namespace octet
