#include "octet/quant/kv_scales.h"

#include <gtest/gtest.h>

#include <string>

namespace octet {
namespace {

using Role = KvScaleName::Role;

TEST(KvScales, NamesInTheWild) {
  struct Case {
    std::string rest;
    Role role;
  };
  for (const Case& expected : {Case{"self_attn.k_scale", Role::kKey},
                               Case{"self_attn.v_scale", Role::kValue},
                               Case{"self_attn.kv_scale", Role::kKeyAndValue},
                               Case{"self_attn.k_proj.k_scale", Role::kKey},
                               Case{"self_attn.v_proj.v_scale", Role::kValue},
                               Case{"self_attn.qkv_proj.k_scale", Role::kKey},
                               Case{"self_attn.qkqkv_proj.v_scale", Role::kValue},
                               Case{"self_attn.k_proj.output_scale", Role::kKey},
                               Case{"self_attn.v_proj.output_scale", Role::kValue},
                               Case{"self_attn.q_proj.output_scale", Role::kNotUsed},
                               Case{"self_attn.prob_output_scale", Role::kNotUsed},
                               Case{"self_attn.q_scale", Role::kNotUsed},
                               Case{"self_attn.q.scale", Role::kNotUsed},
                               Case{"self_attn.k_cache.scale", Role::kKey},
                               Case{"self_attn.v_cache.scale", Role::kValue},
                               Case{"self_attn.k_zero_point", Role::kNotUsed},
                               Case{"self_attn.v_proj.output_zero_point", Role::kNotUsed},
                               Case{"mixer.k_proj.k_scale", Role::kKey},
                               Case{"attention.kv_fake_quantizer.qscale_act", Role::kKeyAndValue},
                               Case{"attention.v_fake_quantizer.qscale_act", Role::kValue}}) {
    for (const std::string prefix : {"", "model.", "backbone.", "model.language_model."}) {
      const std::string tensor = prefix + "layers.17." + expected.rest;
      const auto name = parse_kv_scale(tensor);
      ASSERT_TRUE(name) << tensor;
      EXPECT_EQ(name->layer, 17) << tensor;
      EXPECT_EQ(name->role, expected.role) << tensor;
    }
  }
}

TEST(KvScales, OtherTensors) {
  for (const std::string_view tensor :
       {"model.layers.0.self_attn.k_proj.weight_scale", "model.layers.0.self_attn.k_proj.input_scale",
        "model.layers.0.self_attn.o_proj.output_scale", "model.layers.0.mlp.k_scale", "self_attn.k_scale",
        "model.layers.self_attn.k_scale", "model.layers.0", "model.layers.0.self_attn.k_proj.v_scale",
        "model.layers.0.self_attn.k_scale_inv", "model.players.0.self_attn.k_scale", "layers.-1.self_attn.k_scale",
        "layers.99999999999999999999.self_attn.k_scale"}) {
    EXPECT_FALSE(parse_kv_scale(tensor)) << tensor;
  }
}

}  // namespace
}  // namespace octet
