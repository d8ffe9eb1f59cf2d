package pqc

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
)

// answer is a known-answer test: what an algorithm makes of fixed inputs has
// this SHA-256. It covers key generation from a seed, the operation and its
// reverse, and the refusal of what was changed. The vectors of NIST, in the
// tests of this package, show that the answers are right.
//
// Those that are slow run before the algorithm is used for the first time; all
// others when the provider is opened.
type answer struct {
	algorithm Algorithm
	slow      bool
	sum       string
}

var answers = []answer{
	{MLKEM512, false, "89d8cf121018145dca5b702c36c0ccc097e4ab76cf7ef372ace6d810691b30a0"},
	{MLKEM768, false, "58f2ce290a5d0aafb68db352cf9b8b50dbebc27f1c649340e6bc781c71af9e8d"},
	{MLKEM1024, false, "4fa2a8edf3b4ad340a8fbfc93c80ec0fd1fb4a773f439a5800966c1c0f0fce88"},
	{MLDSA44, false, "6c80282e0ebaf42ad3c7c205b478167a0a1477ef7dc5e9101562ffc1b2c00995"},
	{MLDSA65, false, "0da981777ba84dccf37fc0d6088d9f1311636e7c2b8bcee93909e7205aefa411"},
	{MLDSA87, false, "cb2000a1a1f142333aae09f0fcfcd8a33e8a76add09211c71091455d07a439d1"},
	{SLHDSA128s, true, "3e5c29bbd2814a38eb4646212b3d46a7d895855b92c2c1dd86f540877cdd9f67"},
	{SLHDSA128f, true, "3e7ebf83b4ac6837acbf74464a89a1ba2501d77e29831f61dd68a545a4f695fe"},
	{SLHDSA192s, true, "9edeb0b747c7f69eb1821500002b7b31d6e3e9b622f82a5cd7069a2a896a6e6c"},
	{SLHDSA192f, true, "d83d6ba71a538a3d36b002dc39185f21f5e0f52bfbbfb6f5ba4bca0fb17015ef"},
	{SLHDSA256s, true, "a54297569858463fffc93371e371e3c2143056dd1e24c1dc8bb43ac0bd136822"},
	{SLHDSA256f, true, "cddba118852bf263d6b0a0488feac254355aa356edc9131fa1e0cdd68c43ad65"},
	{AES256GCM, false, "7aa64de66656b2162accc453ab934893fb3dbc3ed34b181098e9ec8223a8da3b"},
	{ChaCha20Poly1305, false, "068ff3421d74e0dc705335dbfb3db2bf539065ec2c4c859588854e8174c6ac88"},
	{SHA256, false, "4b52df5ba999154217be8504fe1bee153e48b88c26ea15f9e559bc89f829d570"},
	{SHA384, false, "5df91ae36c75d1ae250e7213111953ad99db30b2659c046df744091578bcbfbb"},
	{SHA512, false, "6f567b1eee11a8ce039654d1fe8d4b79185d8f50a26d4ffccb4b45416726629c"},
	{SHA3_256, false, "3f7c7de62ee891f8a3e8a30bbac448fc5b30ff0a3c8fd38686f64802c4406088"},
	{SHA3_384, false, "c465068cc68df602a668b9d9b1630fdba581f635aa4cf93e8bc5bd7bf07ac9ec"},
	{SHA3_512, false, "b375ba5af69337c97fd8fb70d631dca4460ccc246585fbce83fe61f271e28335"},
	{SHAKE128, false, "ae6f233c6f7f07f2c678ddba8bcf886189bace4448e95de41d74a6a589461f7c"},
	{SHAKE256, false, "b71229cbe9648cfbb3bc385b4250b292186926ca517128979157aa611cc377fd"},
	{HKDFSHA3_256, false, "84401245a2874b5b3d40ea1b80099a6238c56ada19199a3f4cfdc1e004d116c4"},
}

var (
	errAnswer  = errors.New("the result differs")
	errReverse = errors.New("the reverse operation does not give the input back")
	errRefuse  = errors.New("what was changed is not refused")
)

func (a answer) check(s *software) error {
	p, err := a.algorithm.Params()
	if err != nil {
		return err
	}
	var transcript []byte
	switch p.Family {
	case FamilyKEM:
		transcript, err = s.engines.kem[a.algorithm].answer(p)
	case FamilySignature:
		transcript, err = s.engines.sign[a.algorithm].answer(p)
	case FamilyAEAD:
		transcript, err = s.answerAEAD(p)
	default:
		transcript, err = answerHash(p)
	}
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(transcript); hex.EncodeToString(sum[:]) != a.sum {
		return errAnswer
	}
	return nil
}

// counting is the bytes 0, 1, 2 and so on.
func counting(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i)
	}
	return p
}

func (e kemEngine) answer(p Params) ([]byte, error) {
	public, secret := make([]byte, p.PublicKey), make([]byte, p.SecretKey)
	if err := e.derive(counting(p.Seed), public, secret); err != nil {
		return nil, err
	}
	encapsulate, err := e.encapsulator(public)
	if err != nil {
		return nil, err
	}
	key, err := e.decapsulator(secret)
	if err != nil {
		return nil, err
	}
	ciphertext, shared, back := make([]byte, p.Output), make([]byte, p.Shared), make([]byte, p.Shared)
	encapsulate(ciphertext, shared, counting(32))
	key.decapsulate(back, ciphertext)
	if !bytes.Equal(shared, back) {
		return nil, errReverse
	}
	changed := bytes.Clone(ciphertext)
	changed[0] ^= 1
	key.decapsulate(back, changed)
	if bytes.Equal(shared, back) {
		return nil, errRefuse
	}
	return bytes.Join([][]byte{public, secret, ciphertext, shared, back}, nil), nil
}

func (e signEngine) answer(p Params) ([]byte, error) {
	public, secret := make([]byte, p.PublicKey), make([]byte, p.SecretKey)
	if err := e.derive(counting(p.Seed), public, secret); err != nil {
		return nil, err
	}
	key, err := e.signer(secret)
	if err != nil {
		return nil, err
	}
	verify, err := e.verifier(public)
	if err != nil {
		return nil, err
	}
	m := encoded{message: []byte("known answer"), context: []byte("quantavirt")}
	signature := make([]byte, p.Output)
	if err := key.sign(signature, m, nil); err != nil {
		return nil, err
	}
	if !verify(signature, m) {
		return nil, errReverse
	}
	if verify(signature, encoded{message: []byte("Known answer"), context: m.context}) {
		return nil, errRefuse
	}
	return bytes.Join([][]byte{public, secret, signature}, nil), nil
}

func (s *software) answerAEAD(p Params) ([]byte, error) {
	c, err := s.engines.aead[p.Algorithm](counting(p.SecretKey))
	if err != nil {
		return nil, err
	}
	nonce, plaintext, additional := counting(p.Nonce), counting(77), counting(13)
	ciphertext := c.Seal(nil, nonce, plaintext, additional)
	back, err := c.Open(nil, nonce, ciphertext, additional)
	if err != nil || !bytes.Equal(back, plaintext) {
		return nil, errReverse
	}
	changed := bytes.Clone(ciphertext)
	changed[0] ^= 1
	if _, err := c.Open(nil, nonce, changed, additional); err == nil {
		return nil, errRefuse
	}
	return ciphertext, nil
}

func answerHash(p Params) ([]byte, error) {
	switch p.Family {
	case FamilyHash:
		h := hashes[p.Algorithm].new()
		h.Write(counting(200))
		return h.Sum(nil), nil
	case FamilyXOF:
		x := newXOF(p.Algorithm)
		_, _ = x.Write(counting(200)) // never fails
		out := make([]byte, 300)
		_, _ = x.Read(out)
		return out, nil
	default:
		out := make([]byte, 80)
		return out, hkdfSHA3(out, counting(32), counting(16), counting(10))
	}
}
