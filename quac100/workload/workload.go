package workload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"quantavirt/internal/qverr"
	"quantavirt/quac100"
)

// Load is what a card is given to do.
type Load struct {
	Card       *quac100.Card
	Callers    int // at the same time
	Operations int // commands of the card, at least: each kind of step is done once or more

	// Quick leaves out the sets of SLH-DSA for small signatures, which take up to a
	// second each.
	Quick bool

	// Faults says that the card is being broken meanwhile: what it cannot serve is
	// counted and not returned.
	Faults bool
}

// Report is what came of a load.
type Report struct {
	Operations int            // commands that the driver was asked for
	Failed     int            // steps that a fault of the card ended
	Steps      map[string]int // done, by name
}

// ErrWrong is an answer of the card that cannot be right.
var ErrWrong = errors.New("wrong answer")

// Run does the load and returns the first error of each caller, which ends that caller.
func (l Load) Run(ctx context.Context) (Report, error) {
	steps := stepsOf(l.Card.Caps(), l.Quick)
	deck, operations := shuffled(steps, l.Operations)
	r := Report{Operations: operations, Steps: make(map[string]int)}
	var next, failed atomic.Int64
	done := make([]atomic.Int64, len(steps))
	errs := make([]error, l.Callers)
	var all sync.WaitGroup
	for i := range l.Callers {
		w := newCaller(l.Card, i)
		all.Go(func() {
			for {
				n := int(next.Add(1)) - 1
				if n >= len(deck) {
					return
				}
				s := &steps[deck[n]]
				err := s.do(w, ctx)
				switch {
				case err == nil:
					done[deck[n]].Add(1)
				case l.Faults && tolerable(err):
					failed.Add(1)
				default:
					errs[i] = fmt.Errorf("caller %d, %s: %w", i, s.name, err)
					return
				}
			}
		})
	}
	all.Wait()
	for i := range steps {
		r.Steps[steps[i].name] = int(done[i].Load())
	}
	r.Failed = int(failed.Load())
	return r, errors.Join(errs...)
}

// tolerable tells a card at fault, or a key that its reset took away, from a wrong answer.
func tolerable(err error) bool {
	return !errors.Is(err, ErrWrong) && (quac100.IsFault(err) || qverr.CodeOf(err) == qverr.PQCKeyNotFound)
}

// shuffled is the order of steps, the same in each run, and the number of their operations.
func shuffled(steps []step, least int) (deck []int, operations int) {
	var sum float64 // operations of a deck of a million steps
	for _, s := range steps {
		sum += float64(s.share * s.ops)
	}
	for i, s := range steps {
		n := max(1, int(float64(least)*float64(s.share)/sum+0.5))
		for range n {
			deck = append(deck, i)
		}
		operations += n * s.ops
	}
	for ; operations < least; operations++ { // what rounding has taken away
		deck = append(deck, 0)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	rng.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
	return deck, operations
}

// Clear destroys all keys of the card by its command for that, and sees that it does.
func Clear(ctx context.Context, card *quac100.Card) error {
	if _, err := card.GenerateAESKey(ctx, nil); err != nil {
		return err
	}
	if err := card.ZeroizeKeys(ctx); err != nil {
		return err
	}
	left, err := card.ListKeys(ctx)
	if err != nil {
		return err
	}
	return right(len(left) == 0, "keys outlive that all were destroyed")
}
