#include "octet/quantizer/report_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "octet/quantizer/expert_coverage.h"

namespace octet {
namespace {

constexpr double kWidth = 860.0, kHeight = 220.0, kLeft = 70.0, kBottom = 30.0;
constexpr const char* kColors[] = {"#1b6ca8", "#c1440e", "#3a7d44", "#8e5ea2", "#b8860b", "#5a5a5a", "#d16d9e"};

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '&') {
      out += "&amp;";
    } else {
      out += c;
    }
  }
  return out;
}

struct Point {
  double x, y;  // y > 0
};
using Series = std::map<std::string, std::vector<Point>>;

// Points over a logarithmic axis, a colour for each name.
std::string plot(const std::string& title, const std::string& x_title, const Series& series) {
  double most_x = 1.0, low = 1e300, high = 0.0;
  for (const auto& [name, points] : series) {
    for (const Point& point : points) {
      most_x = std::max(most_x, point.x);
      if (!(point.y > 0.0)) continue;
      low = std::min(low, point.y);
      high = std::max(high, point.y);
    }
  }
  if (high == 0.0) return "";
  const double bottom = std::floor(std::log10(low)), top = std::max(bottom + 1.0, std::ceil(std::log10(high)));
  const auto place_x = [&](double x) { return kLeft + x / most_x * (kWidth - kLeft - 10.0); };
  const auto place_y = [&](double y) {
    return (top - std::log10(y)) / (top - bottom) * (kHeight - kBottom - 10.0) + 10.0;
  };
  std::string svg = fmt::format("<h2>{}</h2>\n<svg viewBox=\"0 0 {} {}\" role=\"img\">\n", title, kWidth, kHeight);
  for (double power = bottom; power <= top; power += 1.0) {
    const double y = place_y(std::pow(10.0, power));
    svg += fmt::format(
        "<line x1=\"{0}\" x2=\"{1}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\" class=\"grid\"/><text x=\"{3}\" y=\"{4:.1f}\" "
        "text-anchor=\"end\">1e{5:.0f}</text>\n",
        kLeft, kWidth - 10.0, y, kLeft - 6.0, y + 4.0, power);
  }
  svg += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{} 0 to {:.0f}</text>\n", kWidth - 10.0,
                     kHeight - 8.0, x_title, most_x);
  size_t color = 0;
  double legend = kLeft;
  for (const auto& [name, points] : series) {
    const char* fill = kColors[color++ % std::size(kColors)];
    for (const Point& point : points) {
      if (point.y > 0.0)
        svg += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\" fill=\"{}\"><title>{}: {:.3g}</title></circle>",
                           place_x(point.x), place_y(point.y), fill, escaped(name), point.y);
    }
    svg += fmt::format("\n<text x=\"{:.0f}\" y=\"{}\" fill=\"{}\">{}</text>\n", legend, kHeight - 8.0, fill,
                       escaped(name));
    legend += 14.0 + 7.0 * static_cast<double>(name.size());
  }
  return svg + "</svg>\n";
}

std::string leaf_of(const std::string& module) { return module.substr(module.rfind('.') + 1); }

// The number after "layers.", or the place in the list.
double layer_of(const std::string& module, size_t place) {
  const size_t at = module.find("layers.");
  return at == std::string::npos ? static_cast<double>(place) : std::strtod(module.c_str() + at + 7, nullptr);
}

std::string plots(const QuantizeReport& report) {
  Series weights, outputs, scales, drift;
  for (size_t i = 0; i < report.linears.size(); ++i) {
    const LinearFigures& figures = report.linears[i];
    const double layer = layer_of(figures.module, i);
    const std::string leaf = leaf_of(figures.module);
    weights[leaf].push_back({layer, figures.weight_error});
    scales[leaf].push_back({layer, static_cast<double>(figures.largest_scale)});
    if (figures.calibrated && figures.calibrated->num_measured > 0)
      outputs[leaf].push_back({layer, figures.calibrated->output_error});
  }
  for (const LayerFigures& figures : report.layers)
    drift["residual stream"].push_back({static_cast<double>(figures.layer), figures.drift});
  return plot("Error of outputs on held-out text, by layer", "layer", outputs) +
         plot("Drift of the residual stream on held-out text", "layer", drift) +
         plot("Error of weights, by layer", "layer", weights) + plot("Largest scale, by layer", "layer", scales);
}

std::string summary(const QuantizeReport& report) {
  std::string text = fmt::format(
      "<p>{} linears in <b>{}</b> ({}), {} tensors as they were; {:.1f} MiB of {:.1f} MiB.</p>\n",
      report.linears.size(), escaped(report.scheme), escaped(report.dialect), report.num_copied,
      static_cast<double>(report.written_bytes) / 0x1p20, static_cast<double>(report.source_bytes) / 0x1p20);
  if (!report.model) return text + "<p>Without calibration text: what was lost on text was not measured.</p>\n";
  const ModelFigures& model = *report.model;
  const std::string interval = std::isnan(model.kl_low)
                                   ? "one sample gives no interval"
                                   : fmt::format("95 % interval {:.6f} to {:.6f}", model.kl_low, model.kl_high);
  return text + fmt::format(
                    "<table><tr><th>KL divergence from the source</th><td>{:.6f} nats ({}); median {:.6f}, p99 {:.5f}, "
                    "largest {:.4f}</td></tr>\n<tr><th>top-1 agreement</th><td>{:.2f} %</td></tr>\n"
                    "<tr><th>perplexity</th><td>{:.4f}, of the source {:.4f}</td></tr>\n"
                    "<tr><th>measured on</th><td>{} tokens of {} held-out samples</td></tr>\n"
                    "<tr><th>calibrated on</th><td>{} tokens{} ({})</td></tr></table>\n",
                    model.kl_mean, interval, model.kl_median, model.kl_p99, model.kl_max, 100.0 * model.top1_agreement,
                    model.perplexity, model.source_perplexity, model.num_tokens, model.num_samples,
                    report.calibration_tokens, report.calibrated_all_experts ? ", each by every expert" : "",
                    report.calibration_digest);
}

std::string experts(const QuantizeReport& report) {
  const std::vector<ExpertCoverage> mixtures = expert_coverage(report.linears);
  if (mixtures.empty()) return "";
  std::string text = fmt::format(
      "<h2>Tokens of the calibration text, by expert</h2>\n<table><tr><th>mixture</th><th>experts</th><th>least</th>"
      "<th>median</th><th>most</th><th>without any</th><th>with fewer than {}</th></tr>\n",
      ExpertCoverage::kFewTokens);
  size_t without = 0;
  for (const ExpertCoverage& mixture : mixtures) {
    without += mixture.without_tokens().size();
    text +=
        fmt::format("<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
                    escaped(mixture.mixture), mixture.num_tokens.size(), mixture.least(), mixture.median(),
                    mixture.most(), list_experts(mixture.without_tokens()), list_experts(mixture.with_few_tokens()));
  }
  text += "</table>\n";
  if (without == 0) return text;
  return text + fmt::format(
                    "<p>{} experts saw no token of the text: their weights are rounded to the nearest, and static "
                    "scales of their inputs are the largest of the same projection of the layer's other experts.</p>\n",
                    without);
}

std::string rows(const QuantizeReport& report) {
  std::string text =
      "<h2>Linears</h2>\n<table><tr><th>module</th><th>shape</th><th>weight error</th><th>scales</th><th>tokens</th>"
      "<th>output error</th><th>rounded to the nearest</th><th>largest input</th><th>root mean square</th>"
      "<th>beyond the scale</th></tr>\n";
  for (const LinearFigures& figures : report.linears) {
    text +=
        fmt::format("<tr><td>{}</td><td>{} x {}</td><td>{:.3g}</td><td>{:.3g} to {:.3g}</td>", escaped(figures.module),
                    figures.n, figures.k, figures.weight_error, figures.smallest_scale, figures.largest_scale);
    if (const auto& calibrated = figures.calibrated) {
      const auto measured = [&](double value) {
        return calibrated->num_measured > 0 ? fmt::format("{:.3g}", value) : std::string("not measured");
      };
      text += fmt::format("<td>{}</td><td>{}</td><td>{}</td><td>{:.3g}</td><td>{:.3g}</td><td>{}</td>",
                          calibrated->num_tokens, measured(calibrated->output_error),
                          measured(calibrated->rounded_output_error), calibrated->input_amax, calibrated->input_rms,
                          measured(calibrated->saturated));
    }
    text += "</tr>\n";
  }
  return text + "</table>\n";
}

}  // namespace

std::string report_json(const QuantizeReport& report) {
  Json json = report.to_json();
  for (const char* key : {"out", "seconds", "num_resumed"}) json.erase(key);
  return json.dump(2) + "\n";
}

std::string report_html(const QuantizeReport& report) {
  return "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Quantised by octet</title>\n<style>\n"
         "body { font: 14px sans-serif; max-width: 980px; margin: 2em auto; padding: 0 1em; color: #222 }\n"
         "table { border-collapse: collapse } th, td { text-align: left; padding: 2px 10px 2px 0; font-size: 12px }\n"
         "svg { width: 100% } svg text { font-size: 11px } .grid { stroke: #ddd }\n</style></head><body>\n"
         "<h1>Quantised by octet</h1>\n" +
         summary(report) + plots(report) + experts(report) + rows(report) + "</body></html>\n";
}

}  // namespace octet
