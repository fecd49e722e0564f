//! The bits of every indicator on one series. They are the same on every build, whatever
//! instructions it may use; a change here is a change of values, and belongs in the changelog.

use crate::series::{Kind, columns, compute};
use sluice_calc::{Compat, Indicator, catalog};

/// FNV-1a over the bits of every output; one `NaN` is as good as another.
fn fingerprint(name: &str) -> u64 {
    // Where every bar opens at the close before, hardly any pattern shows.
    let kind = if name.starts_with("cdl") { Kind::Gaps } else { Kind::Walk };
    let columns = columns(kind, 2_024, 20_000);
    let indicator = Indicator::parse(name, Compat::TaLib, &[]).unwrap();
    let outs = compute(&indicator, &columns.bars());
    let bits = outs.iter().flatten().map(|value| if value.is_nan() { 0 } else { value.to_bits() });
    let bytes = bits.flat_map(u64::to_le_bytes);
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[test]
fn every_build_gives_the_same_bits() {
    let mut found: Vec<(&str, u64)> =
        catalog::entries().map(|entry| (entry.name, fingerprint(entry.name))).collect();
    found.sort_unstable();
    let expected = [
        ("ad", 0xaae4_b831_41da_77b9),
        ("adosc", 0x1e1e_385b_33f8_c0e5),
        ("adx", 0xb97a_320f_f987_4b7a),
        ("adxr", 0x6090_51bd_954e_dfc4),
        ("angle", 0xfd5d_c483_2772_8258),
        ("apo", 0x5c9c_aac9_525d_3890),
        ("aroon", 0xaed7_4c57_2d84_c753),
        ("aroonosc", 0x8e91_29df_e439_39c7),
        ("atr", 0x85b2_5d64_c043_195d),
        ("bbands", 0xaac5_6839_7846_1135),
        ("bop", 0xb21d_ba1f_47b3_a89a),
        ("cci", 0x0168_9205_520e_7827),
        ("cdl3blackcrows", 0x1520_8ecf_3fdf_2705),
        ("cdl3whitesoldiers", 0x5d22_1d50_7044_7725),
        ("cdldarkcloudcover", 0x5d22_1d50_7044_7725),
        ("cdldoji", 0x393b_1ef0_aabf_7fc4),
        ("cdldragonflydoji", 0x5d22_1d50_7044_7725),
        ("cdlengulfing", 0xb88b_1a21_c188_1aa5),
        ("cdleveningstar", 0x5d22_1d50_7044_7725),
        ("cdlhammer", 0x5d22_1d50_7044_7725),
        ("cdlhangingman", 0x5d22_1d50_7044_7725),
        ("cdlharami", 0x858b_c6e5_389d_ed45),
        ("cdlinvertedhammer", 0x5d22_1d50_7044_7725),
        ("cdlmarubozu", 0xe0d6_9791_45a7_85c5),
        ("cdlmorningstar", 0x06b0_a41e_4d90_68c4),
        ("cdlpiercing", 0x61f5_9237_2628_e1a5),
        ("cdlshootingstar", 0x5d22_1d50_7044_7725),
        ("cmf", 0xb5a1_62fe_bfb6_56c0),
        ("cmo", 0x8aa9_26f1_beb0_5df8),
        ("dema", 0xe782_047d_0921_e483),
        ("di", 0x86b3_7cbb_903a_8390),
        ("donchian", 0xf9ba_9e3b_4c73_e0fd),
        ("dx", 0xc210_2d0d_67c3_0438),
        ("ema", 0x98ba_32f5_ff9d_ef82),
        ("fractal", 0xece6_d141_66b2_5bc5),
        ("hma", 0xa7be_2bc7_be22_fd25),
        ("ichimoku", 0x931e_3c79_ae50_265c),
        ("intercept", 0xf404_f850_e403_0c5f),
        ("kama", 0xd323_f9d0_8127_92fa),
        ("keltner", 0xb581_d0e8_2593_cb7a),
        ("linearreg", 0xdf90_cbe1_5b5a_5faa),
        ("macd", 0x214a_1f6b_3d11_40f1),
        ("max", 0x89a1_d33e_c43f_5632),
        ("median", 0x5f33_73ff_c3ce_86af),
        ("mfi", 0xca0c_b658_5d8e_f64c),
        ("midpoint", 0x9542_c6ad_9e7f_86e6),
        ("midprice", 0x0a30_1380_42c3_c831),
        ("min", 0x4bee_a74e_4bd5_58a6),
        ("mom", 0x0aa8_2dba_fda2_734d),
        ("natr", 0xf69e_78f8_e846_2b00),
        ("obv", 0x430b_752b_3a62_8a7c),
        ("pivot", 0x7d50_fbbb_a182_ac9c),
        ("ppo", 0x4ad9_d53a_1f18_82e7),
        ("psar", 0x4c45_5a8b_a457_f1d4),
        ("roc", 0xeb2c_85a8_f14e_1ace),
        ("rsi", 0x5c06_0bb6_5c7d_8aae),
        ("slope", 0x3d6e_91ac_37ae_499e),
        ("sma", 0x3fb5_69ad_f109_9855),
        ("stddev", 0x165f_ce54_f52b_8c49),
        ("stoch", 0xb488_09e0_b8e6_93c1),
        ("stochf", 0x1645_30b6_ed1d_c165),
        ("stochrsi", 0xd279_06a0_b363_e2dc),
        ("supertrend", 0x746a_1c10_2828_dac4),
        ("t3", 0x2dfe_038a_65d1_73b9),
        ("tema", 0x8778_0da7_725c_6bee),
        ("trange", 0xd4fb_4f45_69cd_93ee),
        ("trima", 0x5961_ceab_8fc3_e5f7),
        ("trix", 0x3af1_de1e_7a74_89dd),
        ("tsf", 0xa27d_0194_d684_f3c8),
        ("ultosc", 0x3a9e_ec4e_4dc8_1a3f),
        ("var", 0x5398_cc39_f7bf_b368),
        ("vwap", 0x5d66_5fa9_fca0_b25f),
        ("vwma", 0x7c92_aef4_8b7a_df6a),
        ("willr", 0x0d24_0fd2_ea98_f58e),
        ("wma", 0x5d42_60a7_e040_bbc4),
        ("zscore", 0xb10e_7942_8e2c_985f),
    ];
    assert_eq!(found, expected, "{found:#x?}");
}
