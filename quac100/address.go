package quac100

// Address is the card's PCI address, such as 0000:00:08.0. It is known also of a card
// that does not answer.
func (c *Card) Address() string { return c.bus.Address() }
