"""Strokes of a snare drum from sound: times, velocities, grace notes and buzzes."""
