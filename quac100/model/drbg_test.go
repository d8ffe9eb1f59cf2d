package model

import (
	"encoding/hex"
	"testing"
)

// Answers of NIST's validation programme (CAVS 14.3, HMAC_DRBG, SHA-256, no prediction resistance): the output of the second
// of two requests.
func TestDRBG(t *testing.T) {
	for _, v := range []struct {
		entropy, nonce, person, reseed, reseedAdd, add1, add2, want string
	}{
		{
			entropy: "ca851911349384bffe89de1cbdc46e6831e44d34a4fb935ee285dd14b71a7488", nonce: "659ba96c601dc69fc902940805ec0ca8",
			want: "e528e9abf2dece54d47c7e75e5fe302149f817ea9fb4bee6f4199697d04d5b89d54fbb978a15b5c443c9ec21036d2460b6f73ebad0dc2aba6e624abf07745bc1" +
				"07694bb7547bb0995f70de25d6b29e2d3011bb19d27676c07162c8b5ccde0668961df86803482cb37ed6d5c0bb8d50cf1f50d476aa0458bdaba806f48be9dcb8",
		},
		{
			entropy: "5d3286bc53a258a53ba781e2c4dcd79a790e43bbe0e89fb3eed39086be34174b", nonce: "c5422294b7318952ace7055ab7570abf",
			person: "2dba094d008e150d51c4135bb2f03dcde9cbf3468a12908a1b025c120c985b9d",
			add1:   "793a7ef8f6f0482beac542bb785c10f8b7b406a4de92667ab168ecc2cf7573c6", add2: "2238cdb4e23d629fe0c2a83dd8d5144ce1a6229ef41dabe2a99ff722e510b530",
			want: "d04678198ae7e1aeb435b45291458ffde0891560748b43330eaf866b5a6385e74c6fa5a5a44bdb284d436e98d244018d6acedcdfa2e9f499d8089e4db86ae89a" +
				"6ab2d19cb705e2f048f97fb597f04106a1fa6a1416ad3d859118e079a0c319eb95686f4cbcce3b5101c7a0b010ef029c4ef6d06cdfac97efb9773891688c37cf",
		},
		{
			entropy: "06032cd5eed33f39265f49ecb142c511da9aff2af71203bffaf34a9ca5bd9c0d", nonce: "0e66f71edc43e42a45ad3c6fc6cdc4df",
			reseed: "01920a4e669ed3a85ae8a33b35a74ad7fb2a6bb4cf395ce00334a9c9a5a5d552",
			want: "76fc79fe9b50beccc991a11b5635783a83536add03c157fb30645e611c2898bb2b1bc215000209208cd506cb28da2a51bdb03826aaf2bd2335d576d519160842" +
				"e7158ad0949d1a9ec3e66ea1b1a064b005de914eac2e9d4f2d72a8616a80225422918250ff66a41bd2f864a6a38cc5b6499dc43f7f2bd09e1e0f8f5885935124",
		},
		{
			entropy: "93161b2dc08cb0fd50171141c865a841ca935cfdd2b5907d6ff8ab0348c4ceb0", nonce: "5cb9f6e5912b90c3349a50ab881b35a1",
			person: "0dceb4a36326c4df1685df43fddeecb5d0c76f00eb44826694f27e610290f6e1", reseed: "d8e9be44b5f293482548d4787762ebfb03c73c40e45385e8b98907cd66f493dd",
			reseedAdd: "105a8f85d6959f3e043ef508cfea21d52123f03b7aea8034c4eec761eaba1fee", add1: "bf781f7e489d9b4b5aa5ee6d1796468af672a8d25f311edf3c4b4dbf433d703f",
			add2: "c81d6bcf1e5bf37e39dda1735c6f193df115b1a854a12e7cafe060afe4589335",
			want: "4306628124d0100fade7eaaf5edf227d50771f9e5f2e1e983800eef9a39fde0b0c280e63c8728d836b5b93ea794a32c1c04cfc54bd5300e3febb5fe2e1023ede" +
				"d8d7cd180279a598f76823e8d5a7dffcc93a09deec5d1f80838e938fba4de9f47e94b99382ae55f116df9c3b3ddf7e50516e203645852a415796f03a86418107",
		},
	} {
		var d drbg
		d.instantiate(unhex(t, v.entropy), unhex(t, v.nonce), unhex(t, v.person))
		if v.reseed != "" {
			d.reseed(unhex(t, v.reseed), unhex(t, v.reseedAdd))
		}
		out := make([]byte, 128)
		d.generate(out, unhex(t, v.add1))
		d.generate(out, unhex(t, v.add2))
		if got := hex.EncodeToString(out); got != v.want {
			t.Errorf("entropy %s…\n got %s\nwant %s", v.entropy[:8], got, v.want)
		}
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
