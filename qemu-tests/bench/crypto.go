package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	kem "github.com/cloudflare/circl/kem/schemes"
	"github.com/cloudflare/circl/sign"
	signatures "github.com/cloudflare/circl/sign/schemes"

	"quantavirt/pqc"
)

// Crypto compares one operation of our software with its peers of the same run.
type Crypto struct {
	pqc.Rate
	Circl   float64 `json:"circl,omitempty"`   // per second, circl alone; 0: it has none
	OpenSSL float64 `json:"openssl,omitempty"` // per second, OpenSSL 3.5; 0: it has none
}

// each is how long an operation is repeated.
const each = time.Second

// crypto measures the software, circl alone and OpenSSL, algorithm by
// algorithm, so that all three see the same load of the machine.
func (r *run) crypto(ctx context.Context) error {
	service, err := pqc.Open(ctx, pqc.Options{})
	if err != nil {
		return err
	}
	defer service.Close()
	fmt.Fprintf(r.opts.Out, "crypto: %-18s %-17s %12s %12s %12s   per second of one core\n", "", "", "software", "circl", "openssl 3.5")
	for _, p := range pqc.Algorithms() {
		peer, err := r.openssl(ctx, p)
		if err != nil {
			return err
		}
		alone, err := circl(ctx, p)
		if err != nil {
			return err
		}
		err = pqc.Bench(ctx, service, []pqc.Algorithm{p.Algorithm}, each, func(rate pqc.Rate) {
			c := Crypto{rate, alone[rate.Operation], peer[rate.Operation]}
			r.rep.Crypto = append(r.rep.Crypto, c)
			fmt.Fprintf(r.opts.Out, "crypto: %-18s %-17s %12s %12s %12s\n", p.Name, rate.Operation, c.show(rate.PerSecond), c.show(c.Circl), c.show(c.OpenSSL))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (c Crypto) show(perSecond float64) string {
	switch {
	case perSecond == 0:
		return "-"
	case c.Bytes != 0:
		return fmt.Sprintf("%.0f MB/s", perSecond*float64(c.Bytes)/1e6)
	case perSecond < 100:
		return fmt.Sprintf("%.1f", perSecond)
	}
	return fmt.Sprintf("%.0f", perSecond)
}

// circl measures the library that the software is made of, without ours around it.
func circl(ctx context.Context, p pqc.Params) (rates map[string]float64, err error) {
	rates = make(map[string]float64)
	measure := func(operation string, call func() error) {
		n, e := pqc.Repeat(ctx, each, call)
		rates[operation], err = n, errors.Join(err, e)
	}
	switch p.Family {
	case pqc.FamilyKEM:
		s := kem.ByName(p.Name)
		pk, sk, err := s.GenerateKeyPair()
		if err != nil {
			return nil, err
		}
		ct, _, err := s.Encapsulate(pk)
		if err != nil {
			return nil, err
		}
		measure("generate", func() error { _, _, err := s.GenerateKeyPair(); return err })
		measure("encapsulate", func() error { _, _, err := s.Encapsulate(pk); return err })
		measure("decapsulate", func() error { _, err := s.Decapsulate(sk, ct); return err })
	case pqc.FamilySignature:
		s := signatures.ByName(p.Name)
		pk, sk, err := s.GenerateKey()
		if err != nil {
			return nil, err
		}
		message := make([]byte, 32)
		signature := s.Sign(sk, message, &sign.SignatureOpts{})
		measure("generate", func() error { _, _, err := s.GenerateKey(); return err })
		measure("sign", func() error {
			message[0]++ // the time of a deterministic signature depends on the message
			if message[0] == 0 {
				message[1]++
			}
			s.Sign(sk, message, nil)
			return nil
		})
		clear(message)
		measure("verify", func() error {
			if !s.Verify(pk, message, signature, nil) {
				return errors.New("circl does not verify its own signature")
			}
			return nil
		})
	}
	return rates, err
}

// openssl runs "openssl speed", which counts processor time too.
func (r *run) openssl(ctx context.Context, p pqc.Params) (map[string]float64, error) {
	args := []string{"speed", "-mr", "-seconds", strconv.Itoa(int(each / time.Second))}
	switch p.Family {
	case pqc.FamilyKEM, pqc.FamilySignature:
		args = append(args, p.Name)
	case pqc.FamilyAEAD:
		args = append(args, "-bytes", strconv.Itoa(pqc.BenchSize), "-evp", p.Name)
	case pqc.FamilyHash, pqc.FamilyXOF:
		args = append(args, "-bytes", strconv.Itoa(pqc.BenchSize), "-evp", strings.Replace(p.Name, "SHAKE-", "SHAKE", 1))
	default:
		return nil, nil
	}
	cmd := r.tool.Command("openssl", args...)
	cmd.Env = []string{"OPENSSL_CONF=/dev/null"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("openssl speed of %s: %w\n%s", p.Name, err, out)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return parseSpeed(out, p)
}

// operations are the names of what "openssl speed" announces in a line +DTP.
var operations = map[string]string{"keygen": "generate", "encaps": "encapsulate", "decaps": "decapsulate", "signs": "sign", "verify": "verify"}

// parseSpeed reads the output of "openssl speed -mr":
//
//	+DTP:ML-KEM-768:encaps:1             what is measured next
//	+R16:24853:ML-KEM-768:0.88           how often in how many seconds
//	+F:22:AES-256-GCM:6187520000.00      bytes per second of a cipher or hash
func parseSpeed(out []byte, p pqc.Params) (map[string]float64, error) {
	rates := make(map[string]float64)
	operation := ""
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		f := strings.Split(lines.Text(), ":")
		switch {
		case f[0] == "+DTP" && len(f) == 4:
			operation = operations[f[2]]
		case strings.HasPrefix(f[0], "+R") && len(f) == 4 && operation != "":
			n, err1 := strconv.ParseFloat(f[1], 64)
			s, err2 := strconv.ParseFloat(f[3], 64)
			if err := errors.Join(err1, err2); err != nil {
				return nil, err
			}
			rates[operation] = n / s
		case f[0] == "+F" && len(f) == 4:
			n, err := strconv.ParseFloat(f[3], 64)
			if err != nil {
				return nil, err
			}
			name := "hash"
			if p.Family == pqc.FamilyAEAD {
				name = "seal"
			}
			rates[name] = n / pqc.BenchSize
		}
	}
	if len(rates) == 0 {
		return nil, fmt.Errorf("openssl speed of %s says nothing:\n%s", p.Name, out)
	}
	return rates, nil
}
