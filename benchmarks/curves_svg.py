"""Draws a few curves as SVG by hand: no plotting library is needed for that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

COLOURS = ("#1b6ca8", "#c0392b", "#27864b", "#8e44ad", "#b9770e", "#16808a", "#6b4b2a", "#5d6d7e", "#d35400", "#2c3e50")
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 760, 420, 60, 50, 20, 230


def draw(series: Mapping[str, Sequence[tuple[float, float]]], *, across: str, up: str, top: float) -> str:
    """Curves of (x, y) points by name; y is cut off at ``top`` and at a tenth of it below zero."""
    points = [point for curve in series.values() for point in curve]
    right = max(x for x, _ in points) * 1.05
    bottom = -0.1 * top

    def place(x: float, y: float) -> tuple[float, float]:
        inside = min(max(y, bottom), top)
        return (
            LEFT + x / right * (WIDTH - LEFT - RIGHT),
            TOP + (top - inside) / (top - bottom) * (HEIGHT - TOP - BOTTOM),
        )

    body = [_axes(place, right, top, across, up)]
    for number, (name, curve) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in sorted(curve)))
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        body += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{colour}"/>' for x, y in (place(*p) for p in curve)]
        row = TOP + 14 + 20 * number
        body.append(f'<rect x="{WIDTH - RIGHT + 16}" y="{row - 6}" width="14" height="4" fill="{colour}"/>')
        body.append(f'<text x="{WIDTH - RIGHT + 36}" y="{row}">{name}</text>')
    frame = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {box} font-family="sans-serif" font-size="12">'
    return "\n".join([head, frame, *body, "</svg>"]) + "\n"


def _axes(place, right: float, top: float, across: str, up: str) -> str:  # type: ignore[no-untyped-def]
    """Grid lines with their numbers, and what the axes say."""
    made = []
    for step in range(6):
        x, y = right * step / 5, top * step / 5
        (px, _), (_, py), (_, floor) = place(x, 0), place(0, y), place(0, -0.1 * top)
        made.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py:.1f}" y2="{py:.1f}" stroke="#ddd"/>')
        made.append(f'<text x="{LEFT - 8}" y="{py + 4:.1f}" text-anchor="end">{y:g}</text>')
        made.append(f'<line x1="{px:.1f}" x2="{px:.1f}" y1="{floor:.1f}" y2="{floor + 5:.1f}" stroke="#888"/>')
        made.append(f'<text x="{px:.1f}" y="{floor + 18:.1f}" text-anchor="middle">{x:.2f}</text>')
    made.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{across}</text>')
    turned = f'transform="rotate(-90 16 {HEIGHT / 2})"'
    made.append(f'<text x="16" y="{HEIGHT / 2}" text-anchor="middle" {turned}>{up}</text>')
    return "\n".join(made)
