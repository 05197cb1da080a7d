"""The profile of the training benchmark puts kernels where they belong."""

import pytest

from benchmarks.step_profile import CONVOLUTIONS, COPIES, NORMALISATION, OPTIMIZER, REST, group_of


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("aten::mkldnn_convolution", CONVOLUTIONS),
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32", CONVOLUTIONS),
        ("sm80_xmma_fprop_implicit_gemm_indexed_tf32f32_tf32f32_f32_nhwckrsc_nchw", CONVOLUTIONS),
        ("nvjet_hsh_128x256_64x4_mm", CONVOLUTIONS),
        ("void at::native::multi_tensor_apply_kernel<fusedadammathfunctor<float, 4>>", OPTIMIZER),
        ("void at::native::multi_tensor_apply_kernel<lpnormfunctor<float>>", OPTIMIZER),
        ("aten::_foreach_lerp_", OPTIMIZER),
        ("aten::normal_", COPIES),
        ("void at::native::distribution_elementwise_grid_stride_kernel<float, normal_kernel>", COPIES),
        ("memcpy dtod (device -> device)", COPIES),
        ("aten::native_group_norm", NORMALISATION),
        ("void at::native::rowwisemomentscudakernel<float>", NORMALISATION),
        ("triton_red_fused__to_copy_convolution_native_group_norm_3", NORMALISATION),
        ("triton_poi_fused__to_copy_convolution_silu_7", REST),
        ("aten::silu", REST),
    ],
)
def test_a_kernel_is_in_the_group_of_its_work(name, group):
    assert group_of(name) == group
